"""The gateway's composition root: its parts, made and connected."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY

from fanfold.gateway.balancer import Balancer
from fanfold.gateway.context import Context
from fanfold.gateway.cors import Cors
from fanfold.gateway.handshake import Handshake
from fanfold.gateway.limits import limits_of
from fanfold.gateway.messages import HSTS_LINE, SECURITY_LINES
from fanfold.gateway.metrics import GatewayCollector, GatewayStats
from fanfold.gateway.missed import MissedNotifications
from fanfold.gateway.pages import pages
from fanfold.gateway.processes import build_parent, follow
from fanfold.gateway.reconcile import Reconciler
from fanfold.gateway.revocations import Revocations
from fanfold.gateway.routes import RouteTable, public_routes
from fanfold.gateway.server import Server
from fanfold.gateway.settings import GatewaySettings
from fanfold.gateway.snapshots import SnapshotKeeper
from fanfold.gateway.sources import source_of
from fanfold.gateway.tls import Certificates
from fanfold.gateway.tokens import KeySet, Tokens
from fanfold.gateway.websocket import Hub
from fanfold.kit.cluster import connect
from fanfold.kit.fanin import FanIn
from fanfold.kit.settings import SettingsError

if TYPE_CHECKING:
    from fanfold.contracts.snapshot import Snapshot
    from fanfold.gateway.spans import Spans
    from fanfold.kit.runtime import Runtime

SETTINGS = GatewaySettings


async def build(runtime: Runtime[GatewaySettings]) -> None:
    """Start the traffic port and all that keeps it true. Nothing is left for uvicorn to serve but the admin port."""
    settings = runtime.settings
    if settings.processes > 1:
        await build_parent(runtime)
        return
    stats = GatewayStats()
    balancer = Balancer(settings, stats)
    keeper = _snapshots(runtime, stats, balancer)
    await keeper.load()

    tokens = Tokens(KeySet(settings.secrets.path("token_jwks")), runtime.signer)
    valkey_url = settings.secrets.read("valkey_url")
    fan_in = FanIn(valkey_url)
    missed = MissedNotifications(balancer, tokens)
    hub = Hub(settings, stats, fan_in, missed.after)
    # Not the runtime's client: that one makes readiness depend on Valkey, and a gateway serves without it.
    valkey = connect(valkey_url)
    revocations = Revocations(tokens, valkey, hub.close_revoked)
    tokens.reload_keys()
    await revocations.poll()

    routes = RouteTable(public_routes(settings))
    limits = limits_of(settings, stats)
    certificates = _certificates(settings)
    spans = _spans(settings)
    context = Context(
        settings=settings,
        routes=routes,
        tokens=tokens,
        balancer=balancer,
        stats=stats,
        pages=pages(),
        open_socket=Handshake(settings, tokens, hub).open,
        draining=lambda: runtime.draining,
        limits=limits,
        cors=Cors(settings.cors_origins) if settings.cors_origins else None,
        spans=spans,
        fixed_lines=SECURITY_LINES + (HSTS_LINE if certificates else b""),
    )
    server = Server(context, certificates.context if certificates else None)
    await server.start()
    _observe(runtime, GatewayCollector(stats, routes.routes, balancer.endpoints, _gauges(keeper, revocations, fan_in)))
    runtime.check("token keys", lambda: _require(not tokens.without_keys, "no public key of tokens could be read"))
    runtime.background("traffic", server.run)
    runtime.background("snapshots", lambda: source_of(settings).run(keeper.offer))
    runtime.background("revocations", revocations.run)
    runtime.background("fan-in", fan_in.run)
    if settings.parent:
        runtime.background("parent", lambda: follow(settings.parent))
    if limits is not None:
        runtime.background("limits", Reconciler(limits, valkey).run)
    if certificates is not None:
        runtime.background("certificates", certificates.run)
    runtime.on_drain(server.drain)
    if spans is not None:
        runtime.on_close(spans.close)
    runtime.on_close(missed.close)
    runtime.on_close(valkey.close)


def _spans(settings: GatewaySettings) -> Spans | None:
    """What makes traces; None when no collector is named.

    Raises:
        SettingsError: It cannot be made: the extra is not installed.
    """
    if not settings.otlp_endpoint:
        return None
    try:
        from fanfold.gateway.spans import spans_of  # noqa: PLC0415 - an extra that others need not install
    except ImportError as error:
        raise SettingsError(f"FANFOLD_OTLP_ENDPOINT needs the extra fanfold[otel]: {error}") from error
    return spans_of(settings)


def _certificates(settings: GatewaySettings) -> Certificates | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return Certificates(settings.tls_certificate, settings.tls_key)


def _snapshots(runtime: Runtime[GatewaySettings], stats: GatewayStats, balancer: Balancer) -> SnapshotKeeper:
    """The keeper, its readiness check and its page on the admin port."""

    async def apply(snapshot: Snapshot) -> None:
        rings = await asyncio.to_thread(balancer.build_rings, snapshot)
        balancer.apply(snapshot, rings)

    settings = runtime.settings
    keeper = SnapshotKeeper(apply, stats, settings.snapshot_cache, settings.snapshot_confirm_seconds)
    runtime.check("snapshot", lambda: _require(keeper.current is not None, "no snapshot of service locations yet"))

    @runtime.admin.get("/snapshot")
    async def _() -> dict[str, Any]:
        current = keeper.current
        return {
            "epoch": current.epoch if current else None,
            "checksum": current.checksum if current else None,
            "age_seconds": round(keeper.age_seconds, 3) if keeper.confirmed else None,
            "source": keeper.source or None,
            "held_back": keeper.held or None,
        }

    return keeper


def _gauges(keeper: SnapshotKeeper, revocations: Revocations, fan_in: FanIn) -> dict[str, Any]:
    return {
        "fanfold_gateway_snapshot_epoch": (
            "Epoch in force; 0 without a snapshot.",
            lambda: keeper.current.epoch if keeper.current else 0,
        ),
        "fanfold_gateway_snapshot_age_seconds": (
            "Since the source last said that the snapshot in force holds.",
            lambda: keeper.age_seconds,
        ),
        "fanfold_gateway_snapshot_held": (
            "1 while the newest snapshot is held back or refused.",
            lambda: float(bool(keeper.held)),
        ),
        "fanfold_gateway_revocations_age_seconds": (
            "Since revoked sessions were last read.",
            lambda: revocations.age_seconds,
        ),
        "fanfold_gateway_fan_in_connected": (
            "1 while notifications can arrive.",
            lambda: float(fan_in.connected),
        ),
    }


def _observe(runtime: Runtime[GatewaySettings], collector: GatewayCollector) -> None:
    REGISTRY.register(collector)

    async def unregister() -> None:
        REGISTRY.unregister(collector)

    runtime.on_close(unregister)


async def _require(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - a condition and its complaint
    if not holds:
        raise LookupError(otherwise)
