"""Real components as processes of one machine: secrets, stores, a gateway with its snapshot file, signed tokens."""

from __future__ import annotations

import json
import secrets
import time
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final

import httpx

from common.processes import PYTHON
from fanfold.contracts.ids import new_id
from fanfold.contracts.snapshot import Slot, Snapshot, encode
from fanfold.dev import credentials
from fanfold.dev.process import ChildProcess, free_ports
from fanfold.dev.valkey import Valkey
from fanfold.kit.settings import Secrets
from fanfold.profile.tokens import AccessTokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from uuid import UUID

    from common.processes import Workshop
    from fanfold.dev.store import Store

TOKEN_SECONDS: Final = 86_400


@dataclass
class Component:
    """A started component and its ports."""

    process: ChildProcess
    port: int
    admin: int

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid


class House:
    """Components of one benchmark, in a `Workshop`.

    Attributes:
        secrets: The folder that all of them read.
        snapshot: File that the gateway follows.
        valkey: A real server, started on first use.
    """

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self.folder = workshop.folder
        self.secrets = self.folder / "secrets"
        self.snapshot = self.folder / "snapshot.json"
        self._epoch = 0
        self._valkey = Valkey(self.folder / "valkey", secrets.token_hex(16), durable=False)
        stores = SimpleNamespace(
            database_url="postgresql+asyncpg://nobody@127.0.0.1:1/none",
            valkey_url=self._valkey.url,
            s3_access_key="none",
            s3_secret_key="none",
        )
        credentials.write(self.secrets, stores)
        self.tokens = AccessTokens(Secrets(self.secrets), TOKEN_SECONDS)

    @property
    def valkey_url(self) -> str:
        """``redis://…`` with its password."""
        return self._valkey.url

    def start_valkey(self) -> int:
        """Start the cache; its pid."""
        self._valkey.start()
        self._workshop.keep(stopping(self._valkey))
        self._valkey.wait()
        return self._valkey.process.pid

    def locate(self, services: Mapping[str, Sequence[Slot]]) -> int:
        """Write the next snapshot, as a whole; its epoch."""
        self._epoch += 1
        partial = self.snapshot.with_suffix(".new")
        partial.write_bytes(
            encode(
                Snapshot(
                    platform="bench/house",
                    epoch=self._epoch,
                    services={name: list(slots) for name, slots in services.items()},
                )
            )
        )
        partial.replace(self.snapshot)
        return self._epoch

    def start(
        self, name: str, *, instance: str = "", cores: Iterable[int] | None = None, **settings: object
    ) -> Component:
        """``fanfold run NAME`` on free ports; ready when it says so."""
        traffic, admin = free_ports(2)
        values = {
            "service": name,
            "instance": instance or f"{name}-0",
            "traffic_host": "127.0.0.1",
            "traffic_port": traffic,
            "admin_host": "127.0.0.1",
            "admin_port": admin,
            "secrets_dir": self.secrets,
            "snapshot_source": f"file:{self.snapshot}",
            "drain_seconds": 0,
            "grace_seconds": 5,
            "log_level": "WARNING",
            **settings,
        }
        env = {
            f"FANFOLD_{key.upper()}": value if isinstance(value, str) else json.dumps(value, default=str).strip('"')
            for key, value in values.items()
        }
        process = self._workshop.start(
            instance or name,
            [PYTHON, "-m", "fanfold", "run", name],
            ready=lambda: _ready(admin),
            env=env,
            cores=cores,
        )
        return Component(process, traffic, admin)

    def token(self, user_id: UUID) -> str:
        """An access token of the user, of a session of its own."""
        return self.tokens.sign(user_id, new_id(), int(time.time()))


def get(path: str, token: str = "", *, more: str = "") -> bytes:
    """A GET as a client sends it."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n{authorization}Accept: application/json\r\n{more}\r\n".encode()


@contextmanager
def stopping(store: Store) -> Iterator[None]:
    """Stop the store at the end."""
    try:
        yield
    finally:
        store.stop()


def _ready(admin: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{admin}/readyz", timeout=2).is_success
    except httpx.TransportError:
        return False
