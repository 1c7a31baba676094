"""A Platform's status: the stages as conditions, and what they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fanfold.contracts.components import COMPONENTS, TRAFFIC_PORT
from fanfold_operator.conditions import Condition, find, is_true, merge
from fanfold_operator.planning.service import ownership
from fanfold_operator.planning.upgrade import ORDER, UNDER_WAY, Phase, advance
from fanfold_operator.resources import meta

if TYPE_CHECKING:
    from fanfold_operator.kinds import Manifest
    from fanfold_operator.planning.platform import Stages
    from fanfold_operator.planning.upgrade import Upgrade

_FAILURES: Final = frozenset({"MigrationFailed", "SchemaRefused", "CredentialsLost"})


def status(stages: Stages, gateway_service: Manifest | None) -> dict[str, Any]:
    """The status as it should read now. `gateway_service` is the Service clients reach."""
    view = stages.view
    before = view.resource.get("status", {})
    generation = view.resource["metadata"]["generation"]
    services = _services(stages)
    stage_list = [
        stages.database,
        stages.cache,
        stages.object_store,
        stages.migrations,
        stages.services,
        stages.ring,
    ]
    if exposed := _exposed(services):
        stage_list.append(exposed)
    upgraded = stages.upgrade
    if upgraded and not view.paused:
        upgraded = advance(upgraded, stages.situation)
    conditions = [
        *stage_list,
        *_summary(stages, upgraded, stage_list),
        up_to_date(stages, upgraded),
        ownership(view),
        *([stages.prometheus] if stages.prometheus else []),
        _paused(paused=view.paused),
    ]
    new: dict[str, Any] = {
        "observedGeneration": generation,
        "ready": f"{sum(is_true(service, 'Ready') for service in services.values())}/{len(COMPONENTS)}",
        "services": {
            name: service["status"]["ready"]
            for name, service in services.items()
            if "ready" in service.get("status", {})
        },
        "conditions": merge(before.get("conditions", ()), conditions, generation, view.now),
    }
    version = _serving_version(services) or before.get("version")
    if version:
        new["version"] = version
    ring = (view.child("HashRing", view.name) or {}).get("status", {})
    if "epoch" in ring:
        new["ring"] = {"epoch": ring["epoch"], "acked": ring.get("acked", "0/0")}
    elif told := before.get("ring"):  # the ring is being made anew, and must not begin below what gateways know
        new["ring"] = {"epoch": told["epoch"], "acked": "0/0"}
    if upgraded:
        new["upgrade"] = upgraded.block()
    url = _url(gateway_service, view.node_address)
    if url:
        new["url"] = url
    return new


def _exposed(services: dict[str, Manifest]) -> Condition | None:
    """Whether clients are led to the gateway, where that is not the gateway's Service's own doing."""
    found = find(services.get("gateway"), "Exposed")
    if found is None:
        return None
    return Condition("Exposed", status=found["status"] == "True", reason=found["reason"], message=found["message"])


def _services(stages: Stages) -> dict[str, Manifest]:
    found = {}
    for component in COMPONENTS:
        service = stages.view.child("PlatformService", meta.child_name(stages.view.name, component.name))
        if service is not None:
            found[component.name] = service
    return found


def _serving_version(services: dict[str, Manifest]) -> str | None:
    """The version every service runs, if it is one."""
    versions = {service.get("status", {}).get("version") for service in services.values()}
    return versions.pop() if len(versions) == 1 and len(services) == len(COMPONENTS) else None


def up_to_date(stages: Stages, upgrade: Upgrade | None) -> Condition:
    """Whether every service runs the release wanted, and if not, why."""
    kind, wanted = "UpToDate", stages.wanted
    if upgrade is None:
        message = f"version {wanted.version} is being installed"
        return Condition(kind, status=False, reason="Installing", message=message)
    if upgrade.phase in UNDER_WAY:
        return _under_way(stages, upgrade)
    target, source = upgrade.target.version, upgrade.source.version if upgrade.source else ""
    if upgrade.phase is Phase.ROLLED_BACK:
        message = (
            f"version {target} was taken back, {source} runs: {upgrade.message}. "
            f"It is not tried again unless spec.version is set back to {source} and then forward"
        )
        return Condition(kind, status=False, reason="RolledBack", message=message)
    if upgrade.phase is Phase.REFUSED:
        message = f"version {source} goes on running: {upgrade.message}"
        return Condition(kind, status=False, reason="UpgradeRefused", message=message)
    if upgrade.target == wanted:
        return Condition(kind, status=True, reason="Current", message=f"every service runs version {target}")
    return Condition(kind, status=False, reason="Waiting", message=f"version {wanted.version} is wanted")


def _under_way(stages: Stages, upgrade: Upgrade) -> Condition:
    kind, target = "UpToDate", upgrade.target.version
    source = upgrade.source.version if upgrade.source else ""
    if upgrade.phase is Phase.MIGRATING:
        message = f"from version {source} to {target}: {stages.migrations.message}"
        return Condition(kind, status=False, reason="Migrating", message=message)
    if upgrade.phase is Phase.ROLLING:
        return Condition(kind, status=False, reason="RollingOut", message=_rolling(stages, upgrade))
    if upgrade.phase is Phase.GATING:
        message = f"version {target}: every service is at it; {stages.situation.gate.message or 'its gate begins'}"
        return Condition(kind, status=False, reason="Gating", message=message)
    message = f"back from version {target} to {source}: {upgrade.message}"
    return Condition(kind, status=False, reason="RollingBack", message=message)


def _rolling(stages: Stages, upgrade: Upgrade) -> str:
    """How far, in words that change only with what they tell."""
    target, parts, rate = upgrade.target, stages.parts, stages.view.errors
    there = [one.name for one in ORDER if parts[one.name].release == target]
    text = f"version {target.version}: {len(there)} of {len(ORDER)} services are at it"
    if there and parts[there[-1]].settled is None:
        text += f", {there[-1]} is rolling"
    return text + ("; waits, as no gateway tells how requests fare" if rate and not rate.known else "")


def _summary(stages: Stages, upgrade: Upgrade | None, stage_list: list[Condition]) -> list[Condition]:
    # An upgrade's migrations do not keep the old version from serving.
    needed = [one for one in stage_list if one is not stages.migrations or not stages.services.status]
    missing = [one for one in needed if not one.status]
    if missing:
        first = missing[0]
        ready = Condition("Ready", status=False, reason=first.reason, message=f"{first.type}: {first.message}")
    else:
        ready = Condition("Ready", status=True, reason="Ready", message="clients can be served")
    degraded = _degraded(stages, upgrade, stage_list, missing)
    current = up_to_date(stages, upgrade)
    rolling = [
        name for name, service in _services(stages).items() if is_true(service, "Progressing") and not degraded.status
    ]
    if upgrade and upgrade.phase in UNDER_WAY:
        progressing = Condition("Progressing", status=True, reason=current.reason, message=current.message)
    elif missing and not degraded.status:
        progressing = Condition("Progressing", status=True, reason=ready.reason, message=ready.message)
    elif stages.migrations.reason == "Migrating":
        progressing = Condition("Progressing", status=True, reason="Migrating", message=stages.migrations.message)
    elif rolling:
        progressing = Condition(
            "Progressing", status=True, reason="RollingOut", message=f"rolling: {', '.join(rolling)}"
        )
    else:
        progressing = Condition("Progressing", status=False, reason="Settled", message="")
    return [ready, progressing, degraded]


def _degraded(
    stages: Stages, upgrade: Upgrade | None, stage_list: list[Condition], missing: list[Condition]
) -> Condition:
    """Upgrades that failed, failed steps, stalled rollouts, and whatever was ready before and is not now."""
    if upgrade and upgrade.failed:
        current = up_to_date(stages, upgrade)
        return Condition("Degraded", status=True, reason=current.reason, message=current.message)
    failed = [f"{one.type}: {one.message}" for one in stage_list if one.reason in _FAILURES]
    for name, service in _services(stages).items():
        stalled = find(service, "Degraded")
        if stalled and stalled["status"] == "True":
            failed.append(f"{name}: {stalled['message']}")
    if failed:
        return Condition("Degraded", status=True, reason="Failed", message="; ".join(failed))
    resource = stages.view.resource
    was_ready = is_true(resource, "Ready") or is_true(resource, "Degraded")
    if missing and was_ready:
        lost = ", ".join(one.type for one in missing)
        return Condition("Degraded", status=True, reason="LostReadiness", message=f"was ready, now is not: {lost}")
    return Condition("Degraded", status=False, reason="AsExpected", message="")


def _paused(*, paused: bool) -> Condition:
    if paused:
        message = "annotation fanfold.dev/paused is true: nothing but the ring is changed until it is removed"
        return Condition("Paused", status=True, reason="Annotated", message=message)
    return Condition("Paused", status=False, reason="Active", message="")


def _url(service: Manifest | None, node_address: str | None) -> str | None:
    """Where clients reach the gateway, as far as it is known."""
    if service is None:
        return None
    kind, port = service["spec"].get("type", "ClusterIP"), service["spec"]["ports"][0]
    if kind == "ClusterIP":
        return f"http://{service['metadata']['name']}.{service['metadata']['namespace']}.svc:{TRAFFIC_PORT}"
    if kind == "NodePort":
        return f"http://{_host(node_address)}:{port['nodePort']}" if node_address and "nodePort" in port else None
    for ingress in service.get("status", {}).get("loadBalancer", {}).get("ingress", ()):
        return f"http://{ingress.get('hostname') or _host(ingress['ip'])}:{TRAFFIC_PORT}"
    return None


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
