"""The gateway's way in through the Gateway API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fanfold.contracts.components import TRAFFIC_PORT
from fanfold_operator import kinds
from fanfold_operator.resources import meta

if TYPE_CHECKING:
    from fanfold.contracts.resources import Exposure, PlatformServiceSpec
    from fanfold_operator.kinds import Manifest


def wanted(spec: PlatformServiceSpec) -> Exposure | None:
    """The exposure, if it is by an HTTPRoute."""
    return spec.exposure if spec.exposure and spec.exposure.type == "HTTPRoute" else None


def http_route(owner: Manifest, spec: PlatformServiceSpec, exposure: Exposure) -> Manifest:
    """Everything that reaches these host names at the parent goes to the gateway, WebSockets included."""
    parent = exposure.parent_ref
    assert parent, "the schema demands it"
    reference = {"name": parent.name, "namespace": parent.namespace, "sectionName": parent.section_name}
    name = owner["metadata"]["name"]
    body: dict[str, Any] = {
        "parentRefs": [{field: value for field, value in reference.items() if value is not None}],
        "rules": [{"backendRefs": [{"name": name, "port": TRAFFIC_PORT}]}],
    }
    if exposure.hostnames:
        body["hostnames"] = exposure.hostnames
    return meta.manifest(
        kinds.HTTP_ROUTE,
        owner,
        name,
        platform=spec.platform,
        component=spec.component,
        version=spec.version,
        spec=body,
    )
