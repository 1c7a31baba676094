"""``fanfold dev``: the whole platform as processes of one machine."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import httpx

from fanfold.dev import credentials
from fanfold.dev.logs import LogTail
from fanfold.dev.plan import GATEWAY, HOST, Launch, assign, choose, environment, snapshot
from fanfold.dev.process import ChildProcess, ProcessError, end_stale, free_ports
from fanfold.dev.stores import BackingStores
from fanfold.dev.supervisor import Startable, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MIGRATE_SECONDS: Final = 120
PROBE_SECONDS: Final = 3.0
LOOK_SECONDS: Final = 0.2
STOP_SECONDS: Final = 10.0
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FANFOLD: Final = (sys.executable, "-m", "fanfold")


@dataclass
class Options:
    """What the user asked for.

    Attributes:
        folder: Data, secrets and logs; kept between runs.
        services: Components to run; none for all.
        port: The gateway's; 0 for any that is free.
        once: Stop as soon as everything is ready.
        ready_seconds: How long that may take.
        quiet: Do not show the components' logs.
    """

    folder: Path = Path(".fanfold/dev")
    services: Sequence[str] = field(default_factory=tuple)
    port: int = 8080
    once: bool = False
    ready_seconds: float = 180.0
    quiet: bool = False


class ComponentProcess:
    """One component, run as ``fanfold run NAME``.

    Attributes:
        admin: ``host:port`` of its admin port.
    """

    def __init__(self, launch: Launch, env: dict[str, str], log: Path) -> None:
        self.name = launch.name
        self.log = log
        self._env = env
        self.admin = f"{HOST}:{launch.admin_port}"
        self.process: ChildProcess
        if log.exists():
            log.replace(log.with_suffix(".log.previous"))

    def start(self) -> None:
        """Start it and do not wait. One that an earlier run left behind is ended first."""
        end_stale(self.log)
        self.process = ChildProcess(self.name, [*FANFOLD, "run", self.name], log=self.log, env=self._env)

    def unready(self, client: httpx.Client) -> str:
        """Why it cannot serve now; empty when it can."""
        try:
            answer = client.get(f"http://{self.admin}/readyz")
        except httpx.TransportError:
            return "does not answer yet"
        return "" if answer.is_success else answer.text


class DevPlatform:
    """Context manager: stores, schemas and components are up inside, and gone after it.

    Attributes:
        url: The gateway's address; empty when no gateway runs.

    Raises:
        PlanError: A service asked for does not exist.
        ProcessError: Something did not become ready in time; the message names the log to read.
    """

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self._options = options
        self._folder = options.folder.resolve()
        self._say = say
        self._stack = ExitStack()
        self._names = choose(options.services)
        self.components: list[ComponentProcess] = []
        self.stores = BackingStores(self._folder / "stores")
        self.url = ""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            started = time.monotonic()
            port = _port(self._options.port)
            (self._folder / "logs").mkdir(parents=True, exist_ok=True)
            stack.enter_context(self.stores)
            self._say(f"PostgreSQL, Valkey and S3 are up ({time.monotonic() - started:.1f} s)")
            credentials.write(self._folder / "secrets", self.stores)
            self._plan(port)
            self._migrate()
            self._say(f"schemas are migrated ({time.monotonic() - started:.1f} s)")
            stack.callback(self._stop)
            for component in self.components:
                component.start()
            self._wait(started + self._options.ready_seconds)
            self._say(f"{len(self.components)} components are ready ({time.monotonic() - started:.1f} s)")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def supervised(self) -> list[Startable]:
        """Everything that runs."""
        return [*self.stores.stores, *self.components]

    @property
    def logs(self) -> dict[str, Path]:
        """Log file of each component by name."""
        return {component.name: component.log for component in self.components}

    def _plan(self, port: int) -> None:
        """Ports, environments and the snapshot, whose epoch is the time: it never goes back between runs."""
        launches = assign(self._names, free_ports(2 * len(self._names)), port)
        partial = self._folder / "snapshot.json.new"
        partial.write_bytes(snapshot(launches, epoch=int(time.time())))
        partial.replace(self._folder / "snapshot.json")
        for launch in launches:
            env = self._inherited() | environment(launch, launches, self._folder, self.stores.s3_endpoint)
            self.components.append(ComponentProcess(launch, env, self._folder / "logs" / f"{launch.name}.log"))
        self.url = f"http://{HOST}:{port}" if GATEWAY in self._names else ""

    def _inherited(self) -> dict[str, str]:
        """This process's environment. Where it forbids bytecode, ours goes into the folder: it saves 5 s a process."""
        env = dict(os.environ)
        if env.pop("PYTHONDONTWRITEBYTECODE", ""):
            env["PYTHONPYCACHEPREFIX"] = str(self._folder / "bytecode")
        return env

    def _migrate(self) -> None:
        """Run ``fanfold migrate`` to its end."""
        log = self._folder / "logs" / "migrate.log"
        env = self._inherited() | {
            "FANFOLD_SECRETS_DIR": str(self._folder / "secrets"),
            "FANFOLD_S3_ENDPOINT": self.stores.s3_endpoint,
            "FANFOLD_LOG_FORMAT": "console",
        }
        process = ChildProcess("fanfold migrate", [*FANFOLD, "migrate"], log=log, env=env)
        try:
            if process.wait(MIGRATE_SECONDS):
                raise ProcessError(f"fanfold migrate failed. {process.tail()}")
        finally:
            process.stop()

    def _wait(self, deadline: float) -> None:
        with httpx.Client(timeout=PROBE_SECONDS, trust_env=False) as client:
            self._wait_with(client, deadline)

    def _wait_with(self, client: httpx.Client, deadline: float) -> None:
        waiting = list(self.components)
        while waiting:
            for component in waiting:
                if not component.process.running():
                    code = component.process.returncode
                    raise ProcessError(f"{component.name} ended with code {code}. {component.process.tail()}")
            reasons = {component: component.unready(client) for component in waiting}
            waiting = [component for component in waiting if reasons[component]]
            if waiting and time.monotonic() > deadline:
                lines = [f"{one.name}: {reasons[one]} (log: {one.log})" for one in waiting]
                raise ProcessError("not ready in time:\n" + "\n".join(lines))
            if waiting:
                time.sleep(LOOK_SECONDS)

    def _stop(self) -> None:
        """All at once, for each may drain for a while; then wait for each."""
        running = [component.process for component in self.components if hasattr(component, "process")]
        for process in running:
            process.ask_to_stop()
        for process in running:
            process.stop(STOP_SECONDS)


def _port(wanted: int) -> int:
    """``wanted`` if it is free; any free one for 0.

    Raises:
        ProcessError: Somebody listens on it.
    """
    if wanted == 0:
        return free_ports(1)[0]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError as error:
            raise ProcessError(
                f"port {wanted} is taken ({error.strerror}): choose another with --port, 0 for any"
            ) from error
    return wanted


class _StopAskedError(Exception):
    """A signal said so."""


def _on_signal(number: int, _: object) -> None:
    for other in STOP_SIGNALS:  # stopping has limits of its own; a second Ctrl-C must not leave half of it undone
        signal.signal(other, signal.SIG_IGN)
    raise _StopAskedError(signal.Signals(number).name)


def run(options: Options, say: Callable[[str], None], *, colour: bool = False) -> None:
    """Run the platform until SIGINT, SIGTERM or SIGHUP, or with ``once`` until it is ready.

    Raises:
        PlanError: A service asked for does not exist.
        ProcessError: It could not be started.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, _on_signal)
    try:
        with DevPlatform(options, say) as platform:
            say(f"gateway: {platform.url}" if platform.url else "no gateway asked for")
            if not options.once:
                _look_after(platform, options, say, colour=colour)
    except _StopAskedError as asked:
        say(f"stopped by {asked}")


def _look_after(platform: DevPlatform, options: Options, say: Callable[[str], None], *, colour: bool) -> None:
    say("Ctrl-C stops everything")
    tail = LogTail({} if options.quiet else platform.logs, print, colour=colour)
    supervisor = Supervisor(platform.supervised, say)
    while True:
        supervisor.look()
        tail.look()
        time.sleep(LOOK_SECONDS)
