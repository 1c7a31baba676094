"""PostgreSQL, Valkey and an S3 store from PyPI wheels, on free loopback ports: for development and tests."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fanfold.dev.objectstore import ObjectStore
from fanfold.dev.postgres import Postgres
from fanfold.dev.process import ProcessError
from fanfold.dev.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fanfold.dev.store import Store


class BackingStores:
    """Context manager: starts the three stores, waits until each answers, stops them at the end in reverse order.

    Args:
        folder: Where data, logs and generated passwords live, kept between runs. None: a temporary folder, deleted at
            the end, and nothing waits for the disk.

    Attributes:
        database_url: ``postgresql+asyncpg://…`` with its password.
        valkey_url: ``redis://…`` with its password.
        s3_endpoint: ``http://host:port``.
        s3_access_key: Key id with all rights.
        s3_secret_key: Its secret.
        stores: The stores, in the order of their start.

    Raises:
        ProcessError: A store ended or was not ready in time (the message quotes its log), or another process uses the
            folder.
    """

    s3_access_key = "fanfold"
    s3_secret_key: str
    database_url: str
    valkey_url: str
    s3_endpoint: str

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder.resolve() if folder else None
        self._stack = ExitStack()
        self.stores: list[Store] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            durable = self._folder is not None
            folder = self._folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fanfold-stores-")))
            # PostgreSQL's user passes through here; what it must not read has narrower rights of its own.
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            folder.chmod(0o711)
            stack.enter_context(_alone_in(folder))
            self._make(folder, durable=durable)
            for store in self.stores:
                store.start()
                stack.callback(store.stop)
            for store in self.stores:
                store.wait()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _make(self, folder: Path, *, durable: bool) -> None:
        passwords = _passwords(folder / "passwords.json")
        self.s3_secret_key = passwords["s3"]
        objects = ObjectStore(folder / "s3", self.s3_access_key, self.s3_secret_key, durable=durable)
        postgres = Postgres(folder / "postgres", passwords["postgres"], durable=durable)
        valkey = Valkey(folder / "valkey", passwords["valkey"], durable=durable)
        self.database_url, self.valkey_url, self.s3_endpoint = postgres.url, valkey.url, objects.url
        self.stores = [objects, valkey, postgres]  # the slowest first: they start side by side


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ProcessError(
                f"another process runs the stores in {folder}: stop it, or choose another folder"
            ) from None
        yield


def _passwords(file: Path) -> dict[str, str]:
    """Those of the run before, or new ones."""
    if not file.exists():
        made = {name: secrets.token_hex(16) for name in ("postgres", "valkey", "s3")}
        partial = file.with_suffix(".new")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            json.dump(made, out)
        partial.rename(file)
    known: dict[str, str] = json.loads(file.read_text())
    return known
