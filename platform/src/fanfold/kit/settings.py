"""Settings shared by all components: ``FANFOLD_*`` variables for what is public, files in one folder for secrets."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

Port = Annotated[int, Field(ge=0, le=65535)]
Configured = TypeVar("Configured", bound="Settings")


class SettingsError(Exception):
    """The environment cannot be used: the message names the variable or file and what is expected."""


class Secrets:
    """Secrets as files of one folder, read when asked for and never shown.

    A folder of files (a mounted Kubernetes Secret) keeps them out of environment dumps and follows rotation.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> str:
        """The secret without surrounding white space.

        Raises:
            SettingsError: The file is missing, unreadable or empty.
        """
        try:
            value = self.path(name).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SettingsError(f"cannot read the secret {name!r} in {self._folder}: {error.strerror}") from error
        if not value:
            raise SettingsError(f"the secret {name!r} in {self._folder} is empty")
        return value

    def has(self, name: str) -> bool:
        """Whether there is such a secret, for those that may be left out."""
        return self.path(name).is_file()

    def path(self, name: str) -> Path:
        """Where the secret lives, for readers that watch the file."""
        return self._folder / name

    def __repr__(self) -> str:
        return f"Secrets({str(self._folder)!r})"


class Settings(BaseSettings):
    """What every component reads. Rooms extend it in their ``settings.py``."""

    model_config = SettingsConfigDict(env_prefix="FANFOLD_", frozen=True, extra="ignore")

    service: str = "fanfold"
    instance: str = "local"
    """Name of this replica (the pod's name): unique among consumers of a group."""
    version: str = "0.1.0"
    log_level: str = "INFO"
    log_format: str = Field(default="json", pattern="^(json|console)$")
    traffic_host: str = "0.0.0.0"  # noqa: S104 - a pod's only address; NetworkPolicies and the signed identity guard it
    traffic_port: Port = 8000
    admin_host: str = "0.0.0.0"  # noqa: S104 - probes and scrapes come from the node and from Prometheus
    admin_port: Port = 9000
    secrets_dir: Path = Path("/run/fanfold/secrets")
    peers: dict[str, str] = {}
    """Base URL of each other service, e.g. ``{"follow": "http://demo-follow:8000"}``."""
    release_seconds: float = Field(default=20.0, ge=0, le=300)
    """Most time the preStop hook waits for the operator's word that every gateway has stopped sending here."""
    drain_seconds: float = Field(default=2.0, ge=0, le=300)
    """Between failing readiness and closing the port: for kube-proxy, load balancers and kept-alive connections."""
    grace_seconds: float = Field(default=15.0, ge=0, le=600)
    """For requests and messages under way to end."""
    database_pool: int = Field(default=5, ge=1, le=100)
    database_replica_lag_seconds: float = Field(default=2.0, ge=0.1, le=60)
    """How far behind a read replica (the secret ``database_read_url``) may be; further, and the primary is read."""
    media_base_url: str = "/v1/media"
    """Prefix of photo URLs: a CDN's base URL, or the gateway's own media path."""
    signed_photos: Literal["none", "private", "all"] = "private"
    """Whose photos have addresses that expire: `fanfold.kit.media`. The same for all services."""
    signature_seconds: int = Field(default=3600, ge=60, le=7 * 24 * 3600)
    """An address that expires is good for so long at least, and less than twice. The same for all services."""
    compression: tuple[Literal["gzip", "br"], ...] = ("gzip", "br")
    """Codings offered for JSON, the preferred first; empty: none. See `fanfold.kit.compression`."""
    compression_bytes: int = Field(default=1024, ge=0)
    """Smaller answers are not compressed: they fit into one packet."""
    require_if_match: bool = False
    """Whether edits without ``If-Match`` are refused with 428. Off: they overwrite whatever is there."""
    feed_length: int = Field(default=20, ge=1, le=100)
    celebrity_threshold: int = Field(default=10_000, ge=1)
    timeline_copies: int = Field(default=1, ge=1, le=16)
    """Copies of a celebrity's timeline, read by as many parts of the feed's replicas: one for each server of a cache
    whose readers would overload the server that has it. 1: the timeline itself."""

    @cached_property
    def secrets(self) -> Secrets:
        """The folder of secrets."""
        return Secrets(self.secrets_dir)


class ObjectStoreSettings(Settings):
    """For components that speak to the object store."""

    s3_endpoint: str = "http://127.0.0.1:8333"
    s3_region: str = "us-east-1"
    s3_bucket: str = "fanfold"
    s3_public_endpoint: str = ""
    """Where clients reach the store for presigned uploads; empty: at `s3_endpoint`."""


def load(kind: type[Configured]) -> Configured:
    """Read the environment.

    Raises:
        SettingsError: One line per variable that is missing or malformed.
    """
    try:
        return kind()
    except ValidationError as error:
        lines = [f"FANFOLD_{'_'.join(map(str, item['loc'])).upper()}: {item['msg']}" for item in error.errors()]
        raise SettingsError("; ".join(lines)) from error
