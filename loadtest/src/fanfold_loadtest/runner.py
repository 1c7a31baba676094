"""One run of a scenario: people and posts through the API, load by Locust processes, their shares added up.

Locust has a process of its own for each share: it patches the standard library, and one process is one core at most.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from fanfold_loadtest import plan as plans
from fanfold_loadtest.arrivals import DRAIN_SECONDS
from fanfold_loadtest.client import Api, Person
from fanfold_loadtest.cluster import acting
from fanfold_loadtest.journey import UPLOADS, Journey, Step
from fanfold_loadtest.photos import PHOTOS
from fanfold_loadtest.plan import PLAN_VARIABLE, Plan, Progress, Reader
from fanfold_loadtest.recording import Mark, Share
from fanfold_loadtest.schedule import begins, celebrity_posts, cluster_events
from fanfold_loadtest.verdict import climb

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from fanfold_loadtest.cluster import Actor
    from fanfold_loadtest.crowd import Crowd
    from fanfold_loadtest.population import Degrees
    from fanfold_loadtest.scenario import Phase, Scenario

START_SECONDS: Final = 60.0
"""For a Locust process to start, to see who has seen the last post, and to end."""
SYNC_SECONDS: Final = 3.0
"""From the start of the processes to the common beginning of their load, each more process some more."""
FIND_SECONDS: Final = 5.0
"""For the gateway to answer: a wrong URL is told soon."""
WATCHERS: Final = 5
MAX_LISTENING: Final = (UPLOADS - 2) // 2
"""Each process comments on posts of its own listeners: two at least, for nobody notifies themselves."""
POLL_SECONDS: Final = 0.5
ENDED_EARLY: Final = "the run was ended before the load began"


class RunError(Exception):
    """The load could not be made; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a run.

    Attributes:
        scenario: What was run.
        url: Where.
        seed: Of what was drawn.
        started: When the load began.
        shares: What each process measured.
        interrupted: Whether somebody ended it early.
        mishaps: What was to be done to the platform and could not be, or was still under way when the load began.
        degrees: Of the seeded graph, where there was one.
    """

    scenario: Scenario
    url: str
    seed: int
    started: datetime
    shares: Sequence[Share]
    interrupted: bool = False
    mishaps: tuple[str, ...] = ()
    degrees: Degrees | None = None


class Generators(Protocol):
    """The processes that send the load, wherever they are."""

    async def ready(self, stop: asyncio.Event) -> None:
        """Return when all of them can be told what to do, or when `stop` is set."""

    async def apply(
        self, parts: Sequence[Plan], show: Callable[[Sequence[Progress], float], None], stop: asyncio.Event
    ) -> list[Share]:
        """Have each do one plan; what each measured. `stop` ends the load early."""


class Local:
    """Locust processes beside this one."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def ready(self, stop: asyncio.Event) -> None:
        """They are started when there is something to do."""

    async def apply(
        self, parts: Sequence[Plan], show: Callable[[Sequence[Progress], float], None], stop: asyncio.Event
    ) -> list[Share]:
        """Start them, and wait for their end."""
        with TemporaryDirectory(prefix="fanfold-loadtest-") as folder:  # mode 0700: plans hold tokens
            shares, _ = await apply_load(parts, self._url, Path(folder), show, stop)
        return shares


async def perform(  # noqa: PLR0913 - what the command asks for
    scenario: Scenario,
    url: str,
    *,
    processes: int,
    seed: int,
    tell: Callable[[Step], None],
    show: Callable[[Sequence[Progress], float], None],
    crowd: Crowd | None = None,
    generators: Generators | None = None,
    stop: asyncio.Event | None = None,
    actor: Actor | None = None,
) -> Run:
    """Prepare, load, and add up. SIGINT ends the load early; what was measured by then is kept.

    Args:
        scenario: What to run.
        url: Base URL of the gateway.
        processes: Locust processes that share the rate.
        seed: Of the graph, of arrivals and of who does what.
        tell: Called with each finished step of the preparation.
        show: Called while the load runs: progress of each process, seconds since the beginning.
        crowd: Seeded people to log in as, in place of making some.
        generators: Of the load; by default processes beside this one.
        stop: Set, it ends the run early, as SIGINT does while the load runs.
        actor: Who does to the platform what the scenario asks for, if it does.

    Raises:
        RunError: Locust failed, the run was ended before the load began, or it acts on a cluster and there is none.
        ClusterError: The Platform cannot be reached.
        JourneyError: People and posts could not be made.
    """
    stop, generators = stop or asyncio.Event(), generators or Local(url)
    deeds = cluster_events(scenario)
    if deeds and actor is None:
        raise RunError(
            f"{scenario.name} acts on the platform it loads: give --platform NAMESPACE/NAME, and --kubeconfig if needed"
        )
    if "notify" in scenario.mix and processes > MAX_LISTENING:
        raise RunError(f"at most {MAX_LISTENING} processes have authors to listen for; give fewer --processes")
    async with AsyncExitStack() as stack:
        if actor and deeds:
            await stack.enter_async_context(actor)
        async with Api(url) as api:
            journey = Journey(api, scenario.people, seed, tell, crowd)
            watchers = WATCHERS if celebrity_posts(scenario) else 0
            await _unless(stop, journey.populate(FIND_SECONDS, watchers))
        await generators.ready(stop)
        if stop.is_set():
            raise RunError(ENDED_EARLY)
        begin_at = time.time() + SYNC_SECONDS + processes
        parts = [make_plan(journey, scenario, begin_at, (index, processes), seed) for index in range(processes)]
        halt = Halt(scenario, processes, stop, show)
        async with acting(actor, deeds, begin_at) as acts:
            shares = await generators.apply(parts, halt.show, stop)
    shares[0].marks += acts.marks
    halt.clean(shares)
    return Run(
        scenario,
        url,
        seed,
        datetime.fromtimestamp(begin_at, UTC),
        shares,
        stop.is_set() and halt.at is None,
        mishaps=tuple(filter(None, [journey.undrained, *acts.mishaps])),
        degrees=crowd.degrees if crowd else None,
    )


class Halt:
    """Ends the load at the step that is the last for a reason, where the scenario looks for the capacity.

    Attributes:
        at: That step.
    """

    def __init__(
        self,
        scenario: Scenario,
        processes: int,
        stop: asyncio.Event,
        show: Callable[[Sequence[Progress], float], None],
    ) -> None:
        self.at: Phase | None = None
        self._scenario, self._processes, self._stop, self._show = scenario, processes, stop, show
        self._known = 0
        self._why = ""

    def show(self, progress: Sequence[Progress], at: float) -> None:
        """Show it, and set `stop` if it is time."""
        self._show(progress, at)
        steps = [one.steps for one in progress]
        known = sum(map(len, steps))
        wanted = self._scenario.capacity
        if wanted is None or len(steps) < self._processes or known == self._known or self._stop.is_set():
            return
        self._known = known
        found = climb(wanted, self._scenario, steps)
        if found.end is not None:
            self.at, self._why = found.end, found.why
            self._stop.set()

    def clean(self, shares: Sequence[Share]) -> None:
        """Mark where it was, and forget the step after it, which was not to be."""
        if self.at is None:
            return
        ends = {phase.name: begin + phase.seconds for phase, begin in begins(self._scenario)}
        shares[0].marks.append(Mark(ends[self.at.name], f"no further: {self._why}"))
        later = {name for name, end in ends.items() if end > ends[self.at.name]}
        for share in shares:
            share.cells = {name: cells for name, cells in share.cells.items() if name not in later}


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Do it, or give it up as soon as `stop` is set."""
    doing, asked = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({doing, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise RunError(ENDED_EARLY)
        await doing
    finally:
        for task in (doing, asked):
            task.cancel()
        await asyncio.gather(doing, asked, return_exceptions=True)


def make_plan(journey: Journey, scenario: Scenario, begin_at: float, part: tuple[int, int], seed: int) -> Plan:
    """One process's part, on what a journey has made."""
    index, of = part
    people = journey.people[1:]
    publishes = bool(celebrity_posts(scenario))
    watchers = people[-WATCHERS:] if publishes else []
    posts: dict[str, list[str]] = {}
    for post in journey.posts:
        posts.setdefault(post.author, []).append(post.id)
    # Authors first, so that every process has some.
    mine = sorted(people[: len(people) - len(watchers)], key=lambda person: person.id not in posts)[index::of]
    notifies = "notify" in scenario.mix
    photo = PHOTOS[0]
    return Plan(
        scenario=scenario,
        begin_at=begin_at,
        index=index,
        of=of,
        seed=seed,
        readers=[_reader(person) for person in mine],
        token_seconds=min(person.expires_in for person in journey.people),
        authors=sorted(posts.keys() - {journey.people[0].id}),
        posts=[post.id for post in journey.posts],
        celebrity=_reader(journey.people[0]),
        watchers=[_reader(person) for person in watchers],
        celebrity_photo=journey.photo_of(0) if publishes else "",
        photo=(str(photo.path), photo.media_type),
        listening={person.id: posts[person.id] for person in mine if person.id in posts} if notifies else {},
    )


def _reader(person: Person) -> Reader:
    return Reader(person.id, person.token, person.refresh_token)


async def apply_load(
    parts: Sequence[Plan],
    url: str,
    folder: Path,
    show: Callable[[Sequence[Progress], float], None],
    stop: asyncio.Event | None = None,
) -> tuple[list[Share], bool]:
    """Run one Locust process a plan, until the load has ended or SIGINT; what each measured, and whether it was SIGINT.

    `stop` does what SIGINT does, and is set by it.

    Raises:
        RunError: Locust failed.
    """
    loop = asyncio.get_running_loop()
    stop = stop or asyncio.Event()
    paths = [folder / f"plan-{plan.index}.json" for plan in parts]
    for plan, path in zip(parts, paths, strict=True):
        plans.put(path, plan)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    processes: list[asyncio.subprocess.Process] = []
    try:
        processes = [await _start(url, path, folder) for path in paths]
        interrupted = await _wait(processes, parts[0], paths, stop, show)
        return [await _share(process, path) for process, path in zip(processes, paths, strict=True)], interrupted
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _start(url: str, path: Path, folder: Path) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "locust", "-f", str(resources.files("fanfold_loadtest") / "locustfile.py")]
    command += ["Drive", "--headless", "--users", "1", "--host", url, "--only-summary", "--loglevel", "WARNING"]
    with path.with_suffix(".log").open("wb") as log:
        return await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,  # a locust.conf of the caller's folder is not for us
            env={**os.environ, PLAN_VARIABLE: str(path)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C goes to us, and from us to them
        )


async def _wait(
    processes: Sequence[asyncio.subprocess.Process],
    plan: Plan,
    paths: Sequence[Path],
    stop: asyncio.Event,
    show: Callable[[Sequence[Progress], float], None],
) -> bool:
    """Until all have ended; whether that was asked for."""
    limit = plan.scenario.seconds + DRAIN_SECONDS + START_SECONDS + max(0.0, plan.begin_at - time.time())
    ends = asyncio.create_task(_all_ended(processes))
    asked = asyncio.create_task(stop.wait())
    try:
        async with asyncio.timeout(limit):
            while not ends.done() and not asked.done():
                await asyncio.wait({ends, asked}, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                show(_progress(paths), max(0.0, time.time() - plan.begin_at))
            for process in processes:
                if not ends.done() and process.returncode is None:
                    process.send_signal(signal.SIGINT)
            await ends
    except TimeoutError as error:
        raise RunError("Locust did not end in time") from error
    finally:
        ends.cancel()
        asked.cancel()
    return stop.is_set()


async def _all_ended(processes: Sequence[asyncio.subprocess.Process]) -> bool:
    await asyncio.gather(*(process.wait() for process in processes))
    return True


def _progress(paths: Sequence[Path]) -> list[Progress]:
    found = []
    for path in paths:
        try:
            found.append(msgspec.json.decode(plans.progress_path(path).read_bytes(), type=Progress))
        except FileNotFoundError:
            continue
    return found


async def _share(process: asyncio.subprocess.Process, path: Path) -> Share:
    try:
        return plans.read_share(plans.share_path(path))
    except FileNotFoundError as error:
        output = path.with_suffix(".log").read_text(errors="replace").strip().splitlines()
        last = output[-1] if output else "it said nothing"
        raise RunError(f"Locust ended with {process.returncode} and no result: {last}") from error


def new_run_id(now: datetime) -> str:
    """Names files of a run: time, and something that tells runs of one second apart."""
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
