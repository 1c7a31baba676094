"""The components' settings: ``FANFOLD_*`` variables, nothing secret."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from fanfold.contracts.components import COMPONENTS, TRAFFIC_PORT
from fanfold.contracts.resources import EnvVar, MediaSpec
from fanfold_operator.resources import meta, stores
from fanfold_operator.resources.workload import CACHE_DIR

if TYPE_CHECKING:
    from fanfold.contracts.resources import PlatformSpec

RELEASE_SECONDS: Final = 20
"""Most time a pod waits, before it is told to stop, for all gateways to have turned away: a fraction of a second where
there are other replicas, as long as a successor needs to start where there is none."""
ENTRY_SECONDS: Final = 3
"""The same for a gateway: before it stand kube-proxy and load balancers, of which nobody tells when they are done."""
DRAIN_SECONDS: Final = 5
"""From failing readiness to closing the port: for kube-proxy, which carries the calls between services, and for those
who keep connections."""
FINISH_SECONDS: Final = 20
"""For requests under way to end."""
GRACE_SECONDS: Final = RELEASE_SECONDS + DRAIN_SECONDS + FINISH_SECONDS + 10
"""Before the kubelet kills: all of the above, and closing connections."""

_USES_OBJECTS: Final = frozenset({"image", "image-worker"})


def object_store(platform: str, spec: PlatformSpec) -> dict[str, str]:
    """Where the object store is."""
    external = spec.object_store.external
    endpoint = external.endpoint.rstrip("/") if external else f"http://{stores.endpoint(platform, meta.OBJECT_STORE)}"
    settings = {
        "FANFOLD_S3_ENDPOINT": endpoint,
        "FANFOLD_S3_REGION": external.region if external else stores.REGION,
        "FANFOLD_S3_BUCKET": external.bucket if external else stores.BUCKET,
    }
    if spec.object_store.public_endpoint:
        settings["FANFOLD_S3_PUBLIC_ENDPOINT"] = spec.object_store.public_endpoint.rstrip("/")
    return settings


def of_component(component: str, namespace: str, platform: str, version: str, spec: PlatformSpec) -> list[EnvVar]:
    """All settings of one component, in order of their names."""
    values = {
        "FANFOLD_SERVICE": component,
        "FANFOLD_VERSION": version,
        "FANFOLD_LOG_LEVEL": spec.log_level,
        "FANFOLD_PEERS": json.dumps(_peers(platform), sort_keys=True),
        "FANFOLD_MEDIA_BASE_URL": spec.media.base_url,
        "FANFOLD_FEED_LENGTH": str(spec.feed.length),
        "FANFOLD_OWN_POSTS": str(spec.feed.own_posts).lower(),
        "FANFOLD_CELEBRITY_THRESHOLD": str(spec.fanout.celebrity_threshold),
        "FANFOLD_CELEBRITY_MODE": spec.fanout.celebrity_mode,
        "FANFOLD_TIMELINE_COPIES": str(spec.fanout.timeline_copies),
        "FANFOLD_RELEASE_SECONDS": str(ENTRY_SECONDS if component == "gateway" else RELEASE_SECONDS),
        "FANFOLD_DRAIN_SECONDS": str(DRAIN_SECONDS),
        "FANFOLD_GRACE_SECONDS": str(FINISH_SECONDS),
    }
    if spec.media.signed != MediaSpec().signed:  # else a new operator would replace every pod for it
        values["FANFOLD_SIGNED_PHOTOS"] = spec.media.signed
    if component in _USES_OBJECTS:
        values |= object_store(platform, spec)
    if component == "gateway":
        values |= {
            "FANFOLD_SNAPSHOT_SOURCE": f"configmap:{namespace}/{meta.snapshot_name(platform)}",
            "FANFOLD_SNAPSHOT_CACHE": CACHE_DIR,
            "FANFOLD_SNAPSHOT_POLL_SECONDS": str(spec.ring.snapshot_refresh_seconds),
        }
    return [EnvVar(name=name, value=value) for name, value in sorted(values.items())]


def _peers(platform: str) -> dict[str, str]:
    """Base URL of each service that listens; the gateway is nobody's peer."""
    return {
        component.name: f"http://{meta.child_name(platform, component.name)}:{TRAFFIC_PORT}"
        for component in COMPONENTS
        if component.serves and component.name != "gateway"
    }
