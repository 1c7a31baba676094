"""What the gateway reads from its environment. Limits default to what nginx and Envoy ship with, or stricter."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from fanfold.kit.settings import Settings

KIB = 1 << 10
MIB = 1 << 20


class GatewaySettings(Settings):
    """Times are seconds, sizes bytes."""

    service: str = "gateway"

    snapshot_source: str = Field(pattern=r"^(file:.+|configmap:[a-z0-9.-]+/[a-z0-9.-]+)$")
    """``file:/path`` or ``configmap:namespace/name``."""
    snapshot_cache: Path | None = None
    """Folder for the last known good snapshot; None keeps it in memory only."""
    snapshot_poll_seconds: float = Field(default=10.0, gt=0, le=60)
    """A whole read at least this often, however quiet the watch is."""
    snapshot_confirm_seconds: float = Field(default=10.0, ge=0, le=600)
    """How long an absurd snapshot (an emptied service, more than half of it gone) must last to be believed."""

    max_connections: int = Field(default=10_000, ge=1)
    max_in_flight_per_slot: int = Field(default=1_024, ge=1)
    """Most requests under way at one slot, however quick it is (Envoy's circuit breaker: 1,024)."""
    target_seconds: float = Field(default=0.25, ge=0, le=60)
    """A slot whose answers take longer than this, on average, gets fewer requests at once; 0 sets no such limit."""
    outlier_errors: int = Field(default=5, ge=0, le=1_000)
    """Failures in a row after which a slot is left alone; 0: never."""
    outlier_seconds: float = Field(default=30.0, gt=0, le=300)
    """For so long at first, and for so much longer each further time."""
    max_idle_per_slot: int = Field(default=256, ge=1)
    connect_seconds: float = Field(default=1.0, gt=0, le=60)
    request_seconds: float = Field(default=10.0, gt=0, le=600)
    """From the end of the request to the head of its answer."""
    route_seconds: dict[str, Annotated[float, Field(gt=0, le=600)]] = Field(default_factory=dict)
    """The same for single routes: ``{"GET /v1/feed": 2}``."""
    hedge_seconds: float = Field(default=0.0, ge=0, le=10)
    """Ask a second slot for a feed that takes longer than this; 0: never."""
    transfer_seconds: float = Field(default=120.0, gt=0, le=3600)
    """For the whole body of an upload."""
    head_seconds: float = Field(default=10.0, gt=0, le=600)
    """From a request's first byte to the end of its head."""
    idle_seconds: float = Field(default=75.0, gt=0, le=3600)
    """For a kept-alive client connection between requests."""
    stall_seconds: float = Field(default=30.0, gt=0, le=600)
    """For the next piece of a body, in either direction."""
    upstream_idle_seconds: float = Field(default=60.0, gt=0, le=3600)
    """Less than services keep idle connections, so that the gateway is the one who closes them."""
    max_body: int = Field(default=64 * KIB, ge=0)
    max_upload: int = Field(default=25 * MIB, ge=0)
    """For photos."""

    user_rate: float = Field(default=200.0, ge=0)
    """Requests a second of one user, on all gateways together; 0: no limit."""
    user_burst: int = Field(default=400, ge=1)
    address_rate: float = Field(default=0.0, ge=0)
    """The same for one client address (IPv6: its /64). Needs `trusted_proxies` where a load balancer is in front."""
    address_burst: int = Field(default=400, ge=1)
    login_rate: float = Field(default=0.0, ge=0)
    """The same for registration, login and refresh alone, where guessing pays."""
    login_burst: int = Field(default=20, ge=1)

    tls_certificate: Path | None = None
    """PEM file with certificate and chain; with `tls_key` the traffic port speaks TLS. Both are followed."""
    tls_key: Path | None = None
    cors_origins: tuple[str, ...] = ()
    """Origins of other sites whose pages may call the API, ``*`` for all."""

    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Load balancers in front, whose ``X-Forwarded-For`` and ``-Proto`` are believed and added to."""
    access_log_sample: float = Field(default=0.01, ge=0, le=1)
    """Share of answers below 500 that are logged; the others all are."""
    otlp_endpoint: str = ""
    """Base URL of an OpenTelemetry collector (``http://collector:4318``); empty: no spans. Needs the extra ``otel``."""
    trace_sample: float = Field(default=0.01, ge=0, le=1)
    """Share of requests without a trace of their own that get spans."""
    processes: int = Field(default=1, ge=1, le=64)
    """Gateway processes that share the traffic port: one a core. More than one are started and watched by the first."""
    parent: int = 0
    """Process that started this one as one of several, and ends it; set by it alone."""
    reuse_port: bool = False
    """Let several gateway processes share the traffic port (SO_REUSEPORT)."""

    websocket_origins: tuple[str, ...] = ()
    """Origins of other sites whose pages may open WebSockets, ``*`` for all; the gateway's own host always may."""
    websocket_max_per_user: int = Field(default=20, ge=1)
    websocket_max_message: int = Field(default=4 * KIB, ge=125)
    websocket_max_buffer: int = Field(default=256 * KIB, ge=KIB)
    """Bytes waiting for a slow reader before it is closed with 1013."""
    websocket_ping_seconds: float = Field(default=30.0, gt=0, le=300)

    @model_validator(mode="after")
    def _check_tls(self) -> GatewaySettings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("FANFOLD_TLS_CERTIFICATE and FANFOLD_TLS_KEY come together")
        return self
