"""Which custom resources an observed object concerns. Pure."""

from __future__ import annotations

from typing import Final

from fanfold.contracts.resources import PAUSED_ANNOTATION
from fanfold_operator import kinds
from fanfold_operator.kinds import Key, Manifest, key_of, owner_of, platform_of

RING_DEBOUNCE_SECONDS: Final = 0.1
"""Endpoints change in bursts: pods of one rollout become ready together, and slices are rewritten one by one."""
OWNER_DEBOUNCE_SECONDS: Final = 0.1
"""A Platform looks once at what happens to several of its services at a time: each look reads its Secret."""
_CUSTOM: Final = frozenset(kind.kind for kind in kinds.CUSTOM)


def concerned(manifest: Manifest) -> dict[Key, float]:
    """Keys to reconcile, and after how many seconds at the latest."""
    key = key_of(manifest)
    platform = platform_of(manifest)
    keys: dict[Key, float] = {}
    if key.kind in _CUSTOM:
        keys[key] = 0.0
    if owner := owner_of(manifest):
        keys[owner] = OWNER_DEBOUNCE_SECONDS if key.kind in _CUSTOM else 0.0
    if platform:
        ring = Key(kinds.HASH_RING.kind, key.namespace, platform)
        if key.kind == kinds.ENDPOINT_SLICE.kind:
            keys[ring] = RING_DEBOUNCE_SECONDS
        elif key.kind == kinds.PLATFORM_SERVICE.kind:
            keys[ring] = 0.0  # replicas wanted bound the slots
        elif key.kind == kinds.LOAD_TEST.kind and manifest["spec"].get("acts"):
            keys[Key(kinds.PLATFORM.kind, key.namespace, platform)] = OWNER_DEBOUNCE_SECONDS  # what it has scaled
        elif key.kind == kinds.SERVICE.kind:
            keys[Key(kinds.PLATFORM.kind, key.namespace, platform)] = 0.0  # the URL
    return keys


def pause_turned(before: Manifest | None, after: Manifest) -> bool:
    """Whether a Platform's services must look again, because it was paused or resumed."""
    if after["kind"] != kinds.PLATFORM.kind or before is None:
        return False
    return _pause(before) != _pause(after)


def _pause(manifest: Manifest) -> str | None:
    annotation: str | None = manifest["metadata"].get("annotations", {}).get(PAUSED_ANNOTATION)
    return annotation
