"""What the cluster looks like, as far as the operator was told: one copy of each object it may care about.

Fed by watch events, by the answers to the operator's own writes, and by full listings, which also find what a broken
watch missed. Never older than what it already has: versions are compared.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from fanfold_operator.kinds import Key, Kind, Manifest, key_of, owner_of, platform_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


def _version(manifest: Manifest) -> int:
    """Kubernetes compares resource versions as integers (KEP-5504), so may its clients."""
    return int(manifest["metadata"]["resourceVersion"])


def _shared(value: Any) -> Any:
    """A copy whose strings are shared with all other copies.

    Thousands of objects consist of the same few hundred names and values: shared, they take half the memory.
    """
    if isinstance(value, dict):
        return {sys.intern(name): _shared(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_shared(inner) for inner in value]
    return sys.intern(value) if type(value) is str else value


class Store:
    """Objects by key, by owner and by platform."""

    def __init__(self) -> None:
        self._objects: dict[Key, Manifest] = {}
        self._owned: defaultdict[Key, set[Key]] = defaultdict(set)
        self._labelled: defaultdict[tuple[str, str, str], set[Key]] = defaultdict(set)

    def get(self, key: Key) -> Manifest | None:
        """The object, if there is one."""
        return self._objects.get(key)

    def put(self, manifest: Manifest) -> bool:
        """Take an object unless a newer copy is here; whether it was taken."""
        key = key_of(manifest)
        known = self._objects.get(key)
        if known is not None and _version(known) >= _version(manifest):
            return False
        if known is not None:
            self._unlink(key, known)
        metadata = {name: value for name, value in manifest["metadata"].items() if name != "managedFields"}
        trimmed: Manifest = _shared({**manifest, "metadata": metadata})
        self._objects[key] = trimmed
        self._link(key, trimmed)
        return True

    def remove(self, manifest: Manifest) -> bool:
        """Forget a deleted object, unless one of the same name was made since; whether it was known."""
        key = key_of(manifest)
        known = self._objects.get(key)
        if known is None or known["metadata"]["uid"] != manifest["metadata"]["uid"]:
            return False
        self._unlink(key, known)
        del self._objects[key]
        return True

    def take(self, kind: Kind, items: Iterable[Manifest]) -> tuple[set[Key], set[Key]]:
        """Take a listing of one kind, or a page of it: the keys it has, and those that changed."""
        listed, changed = set(), set()
        for item in items:
            item.setdefault("apiVersion", kind.api_version)
            item.setdefault("kind", kind.kind)
            key = key_of(item)
            listed.add(key)
            if self.put(item):
                changed.add(key)
        return listed, changed

    def keep(self, kind: Kind, listed: Collection[Key], version: int) -> set[Key]:
        """Forget what a whole listing as of `version` does not have, unless it is newer; the keys forgotten."""
        missing = [self._objects[key] for key in self.keys(kind) if key not in listed]
        return {key_of(gone) for gone in missing if _version(gone) <= version and self.remove(gone)}

    def owned(self, owner: Key) -> list[Manifest]:
        """What `owner` controls."""
        return [self._objects[key] for key in sorted(self._owned.get(owner, ()))]

    def children(self, owner: Manifest) -> dict[Key, Manifest]:
        """What this very object controls.

        A child of a predecessor of the same name is not its own: garbage collection is about to remove it.
        """
        uid = owner["metadata"]["uid"]
        owned = self.owned(key_of(owner))
        return {key_of(child): child for child in owned if child["metadata"]["ownerReferences"][0]["uid"] == uid}

    def of_platform(self, kind: Kind, namespace: str, platform: str) -> list[Manifest]:
        """Objects of one kind that are of this platform, in order of their names: see `platform_of`."""
        return [self._objects[key] for key in sorted(self._labelled.get((kind.kind, namespace, platform), ()))]

    def keys(self, kind: Kind) -> list[Key]:
        """All keys of one kind."""
        return [key for key in self._objects if key.kind == kind.kind]

    def _link(self, key: Key, manifest: Manifest) -> None:
        if owner := owner_of(manifest):
            self._owned[owner].add(key)
        if platform := platform_of(manifest):
            self._labelled[key.kind, key.namespace, platform].add(key)

    def _unlink(self, key: Key, manifest: Manifest) -> None:
        if owner := owner_of(manifest):
            self._owned[owner].discard(key)
            if not self._owned[owner]:
                del self._owned[owner]
        if platform := platform_of(manifest):
            group = (key.kind, key.namespace, platform)
            self._labelled[group].discard(key)
            if not self._labelled[group]:
                del self._labelled[group]
