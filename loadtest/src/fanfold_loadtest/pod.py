"""The commands of a run's pods, which the operator starts: ``pod`` leads, ``worker`` sends load for one that leads."""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from prometheus_client import REGISTRY

from fanfold_loadtest import last_words, ports
from fanfold_loadtest.client import ApiError
from fanfold_loadtest.conclusion import conclude
from fanfold_loadtest.crew import Crew, work
from fanfold_loadtest.crowd import read_crowd
from fanfold_loadtest.documents import DocumentError
from fanfold_loadtest.errands import Errands
from fanfold_loadtest.facts import FactsError, required
from fanfold_loadtest.html import write_all
from fanfold_loadtest.journey import JourneyError
from fanfold_loadtest.photos import PhotosMissingError
from fanfold_loadtest.runner import Local, Run, RunError, perform
from fanfold_loadtest.scenario import Scenario, judged_by, load, scaled
from fanfold_loadtest.schedule import cluster_events
from fanfold_loadtest.telemetry import RunCollector
from fanfold_loadtest.uploads import UploadError, upload
from fanfold_loadtest.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fanfold_loadtest.crowd import Crowd
    from fanfold_loadtest.journey import Step
    from fanfold_loadtest.plan import Progress

FACTORS: Final = {"small": 1, "medium": 4, "large": 16}
NOT_ASKED: Final = "{} acts on the platform it loads: set spec.acts, and the operator does for it what it asks for"
NO_PROMETHEUS: Final = "give the Platform monitoring.prometheus, or set spec.prometheus.url, or slos without leak"
UNUSABLE: Final = (DocumentError, JourneyError, RunError, ApiError, PhotosMissingError, FactsError)
LAST_WORDS: Final = Path("/dev/termination-log")
SECRETS: Final = Path("/run/fanfold/secrets")
RESULTS: Final = Path("/tmp/results")  # noqa: S108 - in a pod, on a volume of its own
Factor = Annotated[float, typer.Option(min=0.001, max=1_000)]


def pod(  # noqa: PLR0913 - what a LoadTest asks for
    *,
    scenario: Annotated[str, typer.Argument()],
    url: Annotated[str, typer.Option()],
    profile: Annotated[str, typer.Option()] = "small",
    rate_factor: Factor = 1.0,
    time_factor: Factor = 1.0,
    slos: Annotated[Path | None, typer.Option()] = None,
    seed: Annotated[int, typer.Option()] = 1,
    workers: Annotated[int, typer.Option(min=1, max=64)] = 1,
    acts: Annotated[bool, typer.Option("--acts")] = False,
    crowd: Annotated[Path | None, typer.Option()] = None,
    prometheus: Annotated[str, typer.Option()] = "",
    platform: Annotated[str, typer.Option()] = "",
    admin: Annotated[str, typer.Option()] = "127.0.0.1:9000",
    crew: Annotated[str, typer.Option()] = "127.0.0.1:8000",
    upload_to: Annotated[str, typer.Option("--upload")] = "",
    s3_endpoint: Annotated[str, typer.Option()] = "",
    s3_region: Annotated[str, typer.Option()] = "us-east-1",
    secrets: Annotated[Path, typer.Option()] = SECRETS,
    results: Annotated[Path, typer.Option()] = RESULTS,
    last: Annotated[Path, typer.Option("--last-words")] = LAST_WORDS,
) -> None:
    """Lead a run in a pod, for the operator. It ends with a summary, early on SIGTERM and ``POST /cancel``."""
    try:
        factor = FACTORS[profile]
        wanted = judged_by(scaled(load(scenario), factor * rate_factor, time_factor, factor), slos)
        if cluster_events(wanted) and not acts:
            raise RunError(NOT_ASKED.format(wanted.name))
        required(prometheus, platform, wanted, NO_PROMETHEUS)
        people = read_crowd(crowd).part(wanted.people) if crowd else None
        done = asyncio.run(_lead(wanted, url.rstrip("/"), seed, workers, admin, crew, people))
    except UNUSABLE as error:
        last.write_bytes(last_words.encoded(last_words.broken(str(error))))
        _say(str(error))
        raise typer.Exit(Verdict.BROKEN) from error
    content, recorder, trouble = conclude(done, prometheus, platform)
    write_all(results, content)
    location, troubles = upload_to, [trouble]
    if upload_to:
        try:
            upload(results, upload_to, s3_endpoint, s3_region, secrets)
        except UploadError as error:
            location, troubles = "", [*troubles, str(error)]
    said = last_words.summary(content, recorder, location, troubles)
    last.write_bytes(last_words.encoded(said))
    _say("; ".join([said.verdict, *said.reasons]))
    raise typer.Exit(Verdict[content.verdict.upper()])


def worker(
    *,
    master: Annotated[str, typer.Option()],
    url: Annotated[str, typer.Option()],
    index: Annotated[int, typer.Option(envvar="JOB_COMPLETION_INDEX")],
) -> None:
    """Send load for the run that is led at ``--master``: for the operator."""

    async def do() -> None:
        await work(master, index, url.rstrip("/"), _stop_event())

    try:
        asyncio.run(do())
    except RunError as error:
        _say(str(error))
        raise typer.Exit(Verdict.BROKEN) from error


async def _lead(  # noqa: PLR0913, PLR0917 - private, and what a LoadTest asks for
    scenario: Scenario, url: str, seed: int, workers: int, admin: str, crew: str, crowd: Crowd | None
) -> Run:
    loop, stop, collector = asyncio.get_running_loop(), _stop_event(), RunCollector(scenario.name)
    errands = Errands()
    REGISTRY.register(collector)
    try:
        ports.serving(admin, ports.admin(partial(loop.call_soon_threadsafe, stop.set), errands.handle))
        generators: Local | Crew = Local(url)
        if workers > 1:
            generators = Crew(workers)
            ports.serving(crew, generators.handle)
    except OSError as error:
        raise RunError(f"cannot listen on {admin} or {crew}: {error}") from error

    def show(progress: Sequence[Progress], at: float) -> None:
        collector.update(progress, at / scenario.seconds)

    return await perform(
        scenario,
        url,
        processes=workers,
        seed=seed,
        tell=_tell,
        show=show,
        generators=generators,
        stop=stop,
        crowd=crowd,
        actor=errands,
    )


def _stop_event() -> asyncio.Event:
    """Set by SIGTERM: whoever removes a pod gets its report all the same."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    return stop


def _tell(step: Step) -> None:
    _say(f"{step.name}: {step.seconds:.1f} s {step.detail}")


def _say(line: str) -> None:
    typer.echo(line)
