"""EndpointSlices to endpoints."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from fanfold.contracts.components import ADMIN_PORT, TRAFFIC_PORT
from fanfold.contracts.resources import SERVICE_LABEL
from fanfold_operator.ring.slots import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fanfold_operator.kinds import Manifest


def address(host: str, port: int) -> str:
    """``host:port``, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_of(address: str) -> str:
    """The host of ``host:port``, without brackets."""
    return address.rpartition(":")[0].strip("[]")


def admin_ports(endpoints: Iterable[Endpoint]) -> list[str]:
    """``host:port`` of the admin ports of these pods, in order."""
    return sorted(admin_port(host_of(one.address)) for one in endpoints)


def admin_port(host: str) -> str:
    """``host:port`` of one pod's admin port."""
    return address(host, ADMIN_PORT)


def by_service(slices: Iterable[Manifest]) -> dict[str, list[Endpoint]]:
    """Endpoints by the service label of their slices.

    A pod moves between slices while they are rebalanced and may stand in two: what says more (ready before not ready)
    wins, as kube-proxy does. Absent conditions mean ready, see `EndpointConditions` in the API.
    """
    found: defaultdict[str, dict[str, Endpoint]] = defaultdict(dict)
    for part in slices:
        service = part["metadata"].get("labels", {}).get(SERVICE_LABEL)
        if service is None or part.get("addressType") == "FQDN":
            continue
        for endpoint in part.get("endpoints") or ():
            conditions = endpoint.get("conditions") or {}
            one = Endpoint(
                address(endpoint["addresses"][0], TRAFFIC_PORT),
                ready=conditions.get("ready") is not False,
                leaving=bool(conditions.get("terminating")),
            )
            known = found[service].get(one.address)
            if known is None or (one.usable, one.ready) > (known.usable, known.ready):
                found[service][one.address] = one
    return {service: list(endpoints.values()) for service, endpoints in found.items()}


def pods_behind(slices: Iterable[Manifest], service: str) -> list[str]:
    """Names of the pods behind a service, the ready ones first."""
    pods = []
    for part in slices:
        if part["metadata"].get("labels", {}).get(SERVICE_LABEL) != service:
            continue
        for endpoint in part.get("endpoints") or ():
            if (endpoint.get("targetRef") or {}).get("kind") == "Pod":
                ready = (endpoint.get("conditions") or {}).get("ready") is not False
                pods.append((not ready, endpoint["targetRef"]["name"]))
    return [name for _, name in sorted(pods)]
