"""What the gateway reads from its environment. Limits default to what nginx and Envoy ship with, or stricter."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from pydantic import Field

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
    max_idle_per_slot: int = Field(default=256, ge=1)
    connect_seconds: float = Field(default=1.0, gt=0, le=60)
    request_seconds: float = Field(default=10.0, gt=0, le=600)
    """From the end of the request to the head of its answer."""
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

    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Load balancers in front, whose ``X-Forwarded-For`` and ``-Proto`` are believed and added to."""
    access_log_sample: float = Field(default=0.01, ge=0, le=1)
    """Share of answers below 500 that are logged; the others all are."""
    reuse_port: bool = False
    """Let several gateway processes share the traffic port (SO_REUSEPORT): one a core."""

    websocket_origins: tuple[str, ...] = ()
    """Origins of other sites whose pages may open WebSockets, ``*`` for all; the gateway's own host always may."""
    websocket_max_message: int = Field(default=4 * KIB, ge=125)
    websocket_max_buffer: int = Field(default=256 * KIB, ge=KIB)
    """Bytes waiting for a slow reader before it is closed with 1013."""
    websocket_ping_seconds: float = Field(default=30.0, gt=0, le=300)
