"""The custom resources a Platform consists of: one PlatformService per component, one HashRing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from fanfold_operator.kinds import HASH_RING, LOAD_TEST, PLATFORM_SERVICE
from fanfold_operator.resources import meta

_OF_TEMPLATES: Final = frozenset({"suspend", "cancel", "ttlSecondsAfterFinished"})
"""What a copy does not take over. Who made it removes it: one that went by itself would be made again, and run."""

if TYPE_CHECKING:
    from fanfold.contracts.resources import HashRingSpec, PlatformServiceSpec, Record
    from fanfold_operator.kinds import Manifest


def _json(record: Record) -> dict[str, Any]:
    """All fields but those that are None, so that their defaults are ours, not a CRD's of another version."""
    fields: dict[str, Any] = {}
    # Not msgspec.structs.fields, which evaluates all annotations anew: nine tenths of a whole plan.
    for name, encoded in zip(record.__struct_fields__, record.__struct_encode_fields__, strict=True):
        value = getattr(record, name)
        if value is not None:
            fields[encoded] = plain(value)
    return fields


def plain(value: Any) -> Any:
    """Records as plain JSON."""
    if isinstance(value, msgspec.Struct):
        return _json(value)  # type: ignore[arg-type]
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value


def platform_service(owner: Manifest, spec: PlatformServiceSpec) -> Manifest:
    """One component. `replicas` is left out: it belongs to whoever scales."""
    fields = _json(spec)
    del fields["replicas"]
    return meta.manifest(
        PLATFORM_SERVICE,
        owner,
        meta.child_name(spec.platform, spec.component),
        platform=spec.platform,
        component=spec.component,
        version=spec.version,
        spec=fields,
    )


def gate(owner: Manifest, name: str, template: Manifest) -> Manifest:
    """The LoadTest that decides on a new version: as the template, but that it begins, against this platform."""
    platform = owner["metadata"]["name"]
    fields = {one: value for one, value in template["spec"].items() if one not in _OF_TEMPLATES}
    if "platformRef" in fields:
        fields["platformRef"] = {"name": platform}
    return meta.manifest(LOAD_TEST, owner, name, platform=platform, component=meta.GATE, spec=fields)


def hash_ring(owner: Manifest, spec: HashRingSpec) -> Manifest:
    """The platform's ring, of the platform's name."""
    fields = _json(spec)
    return meta.manifest(HASH_RING, owner, spec.platform, platform=spec.platform, component="ring", spec=fields)
