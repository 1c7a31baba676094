"""What each component is given beyond its row in `fanfold.contracts.components`: secrets, settings, default size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fanfold.contracts.components import BY_NAME
from fanfold.contracts.resources import Replicas, Resources, SecretFile, ServiceScaling
from fanfold_operator.differences import quantity
from fanfold_operator.resources import meta

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fanfold.contracts.resources import PlatformSpec

_DATA: Final = ("identity_key", "database_url", "valkey_url")
_OBJECTS: Final = ("s3_access_key", "s3_secret_key")

SECRETS: Final[Mapping[str, tuple[str, ...]]] = {
    "gateway": ("identity_key", "token_jwks", "valkey_url"),
    "profile": (*_DATA, "token_private_key", "token_jwks"),
    "follow": (*_DATA, "cursor_key"),
    "post": (*_DATA, "cursor_key"),
    "activity": (*_DATA, "cursor_key"),
    "feed": ("identity_key", "cursor_key", "valkey_url"),
    "image": (*_DATA, *_OBJECTS),
    "notification": (*_DATA, "cursor_key"),
    "feed-worker": ("identity_key", "valkey_url"),
    "image-worker": (*_DATA, *_OBJECTS),
    "notification-worker": _DATA,
    meta.MIGRATIONS: ("database_url", *_OBJECTS),
    meta.LOAD_TEST: _OBJECTS,
    meta.SEED: ("database_url",),
}
"""Files each component finds in its folder of secrets. Only the profile service can sign access tokens."""
_READ: Final = "database_read_url"
_READERS: Final = frozenset({"follow", "post", "activity", "notification"})
"""Those with reads for a replica find this file, too, if the user has one."""

_SMALL: Final = Resources(requests={"cpu": "50m", "memory": "96Mi"}, limits={"memory": "512Mi"})
# The worker decodes in two processes, each bounded to 640 MiB (`image_process_mib`).
_PICTURES: Final = Resources(requests={"cpu": "50m", "memory": "192Mi"}, limits={"memory": "1792Mi"})
RESOURCES: Final[Mapping[str, Resources]] = dict.fromkeys(BY_NAME, _SMALL) | {"image-worker": _PICTURES}
"""Requests are what an idle replica needs, so that a demonstration fits on two cores; CPU has no limit."""


def resources(component: str, scaling: ServiceScaling) -> Resources:
    """The component's default size, with what the user names in its place."""
    return sized(RESOURCES[component], scaling.resources or Resources())


def sized(default: Resources, wanted: Resources) -> Resources:
    """A default size, with what the user names in its place."""
    requests, limits = default.requests | wanted.requests, default.limits | wanted.limits
    for name in requests.keys() & limits.keys():
        if quantity(requests[name]) > quantity(limits[name]):  # a default against what was named: it gives way
            if name in wanted.limits:
                requests[name] = limits[name]
            else:
                limits[name] = requests[name]
    return Resources(requests=requests, limits=limits)


def scaling(component: str, spec: PlatformSpec) -> ServiceScaling:
    """What the user says of its size."""
    return spec.gateway if component == "gateway" else spec.services.get(component, ServiceScaling())


def replicas(component: str, scaling: ServiceScaling) -> Replicas:
    """The user's bounds, or the component's."""
    row = BY_NAME[component]
    return scaling.replicas or Replicas(min=row.min_replicas, max=row.max_replicas)


def secret_sources(spec: PlatformSpec) -> dict[str, tuple[str, str]]:
    """Secret and key of the files that come from Secrets of the user's."""
    sources = {}
    if external := spec.database.external:
        sources["database_url"] = (external.secret_ref.name, external.secret_ref.key)
        if replica := external.read_secret_ref:
            sources[_READ] = (replica.name, replica.key)
    if cache := spec.cache.external:
        sources["valkey_url"] = (cache.secret_ref.name, cache.secret_ref.key)
    if store := spec.object_store.external:
        sources["s3_access_key"] = (store.secret_ref.name, store.secret_ref.access_key)
        sources["s3_secret_key"] = (store.secret_ref.name, store.secret_ref.secret_key)
    return sources


def secret_files(component: str, platform: str, spec: PlatformSpec) -> list[SecretFile]:
    """The component's files, each from the user's Secret or from the generated one."""
    sources = secret_sources(spec)
    generated = meta.credentials_name(platform)
    files = []
    read = (_READ,) if component in _READERS and _READ in sources else ()
    for name in (*SECRETS[component], *read):
        secret, key = sources.get(name, (generated, name))
        files.append(SecretFile(file=name, secret=secret, key=key))
    return sorted(files, key=lambda one: one.file)
