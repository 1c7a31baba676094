"""What a Prometheus is to scrape of a platform, as `http_sd_config` wants it: pods, runs of load tests, a canary. Pure.

With it an embedded Prometheus needs no right to list pods, and knows each by its name and component.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fanfold.contracts.components import BY_NAME
from fanfold.contracts.resources import SERVICE_LABEL
from fanfold_operator.resources import meta
from fanfold_operator.ring.endpoints import admin_port

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fanfold_operator.kinds import Manifest

TELL_METRICS: Final = frozenset({*BY_NAME, meta.LOAD_TEST, meta.CANARY})
"""The embedded stores have no admin port."""


def targets(slices: Iterable[Manifest], namespace: str, platform: str) -> list[dict[str, Any]]:
    """One group for each pod; those that are not ready count too: why they are not may stand in their metrics.

    A load test's pod that has completed stays in the slices of its Service, which has to name pods before they are
    ready: it serves nothing any more, and would be a target that is down for as long as its LoadTest is kept.
    """
    found = {}
    for part in slices:
        component = part["metadata"].get("labels", {}).get(SERVICE_LABEL)
        for endpoint in part.get("endpoints") or ():
            pod = endpoint.get("targetRef") or {}
            if component == meta.LOAD_TEST and endpoint.get("conditions", {}).get("serving") is False:
                continue
            if component in TELL_METRICS and pod.get("kind") == "Pod":
                labels = {"namespace": namespace, "platform": platform, "pod": pod["name"], "component": component}
                found[pod["name"]] = {"targets": [admin_port(endpoint["addresses"][0])], "labels": labels}
    return [found[name] for name in sorted(found)]
