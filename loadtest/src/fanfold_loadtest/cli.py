"""The command ``fanfold-loadtest``: the demo journey and load scenarios against a gateway."""

from __future__ import annotations

import asyncio
import signal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from fanfold_loadtest.canary import Canary, CanaryError
from fanfold_loadtest.client import Api, ApiError
from fanfold_loadtest.cluster import Cluster, ClusterError, Target
from fanfold_loadtest.comparison import compare as compare_runs
from fanfold_loadtest.conclusion import conclude
from fanfold_loadtest.crowd import Crowd, read_crowd
from fanfold_loadtest.documents import DocumentError
from fanfold_loadtest.facts import FactsError, required
from fanfold_loadtest.html import comparison_report, write_all
from fanfold_loadtest.journey import Journey, JourneyError, Outcome, Step
from fanfold_loadtest.photos import PhotosMissingError
from fanfold_loadtest.pod import FACTORS, pod, worker
from fanfold_loadtest.report import (
    live,
    outcome_document,
    print_differences,
    print_figures,
    print_outcome,
    write_json,
)
from fanfold_loadtest.results import ResultError, read, recorder_of
from fanfold_loadtest.runner import Run, RunError, new_run_id, perform
from fanfold_loadtest.scenario import Scenario, built_in, judged_by, load, scaled
from fanfold_loadtest.seed_command import seed_graph
from fanfold_loadtest.telemetry import RunCollector, serve
from fanfold_loadtest.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fanfold_loadtest.cluster import Actor
    from fanfold_loadtest.plan import Progress

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
console = Console()
errors = Console(stderr=True)
app.command(name="seed")(seed_graph)
for _of_pods in (pod, worker):
    app.command(hidden=True)(_of_pods)

RESULTS: Final = Path("loadtest-results")
NO_PROMETHEUS: Final = "give --prometheus URL, or with --slos FILE objectives without leak"


class Profile(Enum):
    """Sizes of a run."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"

    @property
    def factor(self) -> int:
        """What rates and people are multiplied by: small is for two cores that also run the platform."""
        return FACTORS[self.value]


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise typer.BadParameter("give the gateway's base URL, e.g. http://127.0.0.1:30080")
    return url.rstrip("/")


def _checked_address(address: str) -> str:
    host, _, port = address.rpartition(":")
    if address and not (host and port.isdigit() and int(port) < 1 << 16):
        raise typer.BadParameter("give an address to listen on, e.g. 127.0.0.1:9646")
    return address


def _serve_metrics(address: str, collector: RunCollector | None = None) -> None:
    host, _, port = address.rpartition(":")
    try:
        serve((host, int(port)), collector)
    except OSError as error:
        raise _failed(f"cannot listen on {address}: {error.strerror or error}", Verdict.BROKEN) from error


Url = Annotated[str, typer.Option(help="Base URL of the gateway.", callback=_checked_url)]
People = Annotated[int, typer.Option(min=5, max=2_000, help="How many people join.")]
Seed = Annotated[int, typer.Option(help="Of the graph, of who likes what, and of arrivals.")]
Rate = Annotated[float, typer.Option(min=0.1, max=100_000, help="Requests a second that begin, answered or not.")]
Seconds = Annotated[float, typer.Option(min=1, max=86_400, help="How long the load lasts.")]
Metrics = Annotated[
    str, typer.Option(help="HOST:PORT on which to answer Prometheus while this lasts.", callback=_checked_address)
]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the result to this file, readable by you only.")]


@app.command()
def demo(
    *, url: Url, people: People = 40, seed: Seed = 1, rate: Rate = 50, seconds: Seconds = 10, json: Json = None
) -> None:
    """Fill a platform with people and real photographs, check what they see, and measure feed reads.

    Safe to repeat: every run makes people with fresh names.
    """
    console.print(f"Fanfold demo at {url}", highlight=False)
    try:
        outcome = asyncio.run(_demo(url, people, seed, rate, seconds))
    except JourneyError as error:
        raise _failed(str(error)) from error
    print_outcome(console, outcome)
    if json is not None:
        write_json(json, outcome_document(outcome, rate))


async def _demo(url: str, people: int, seed: int, rate: float, seconds: float) -> Outcome:
    async with Api(url) as api:
        return await Journey(api, people, seed, _tell).run(rate, seconds)


def _tell(step: Step) -> None:
    console.print(
        f"  [green]✓[/] {step.name:28} {step.seconds:6.1f} s   {step.detail}", highlight=False, soft_wrap=True
    )


@app.command(name="list")
def list_scenarios() -> None:
    """The scenarios that come with this command."""
    table = Table("scenario", "seconds", "model", "what it shows", box=None, padding=(0, 2))
    for name in built_in():
        scenario = load(name)
        table.add_row(name, f"{scenario.seconds:g}", scenario.model, scenario.description.strip())
    console.print(table, highlight=False)


@app.command()
def run(
    *,
    scenario: Annotated[str, typer.Argument(help="A name from `list`, or a YAML file.")],
    url: Url,
    profile: Annotated[
        Profile, typer.Option(help="Size: rates and people are multiplied by 1, 4 or 16.")
    ] = Profile.SMALL,
    rate_factor: Annotated[float, typer.Option(min=0.001, max=1_000, help="Multiplies every rate.")] = 1.0,
    time_factor: Annotated[float, typer.Option(min=0.001, max=1_000, help="Multiplies every length of time.")] = 1.0,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Locust processes that share the rate.")] = 1,
    slos: Annotated[Path | None, typer.Option(help="Objectives in place of the scenario's own, a YAML file.")] = None,
    seed: Seed = 1,
    out: Annotated[
        Path, typer.Option(help="Folder for results: a folder of its own is made in it for each run.")
    ] = RESULTS,
    crowd: Annotated[
        Path | None, typer.Option(help="File of `seed`: log in as its people instead of making some.")
    ] = None,
    platform: Annotated[
        str, typer.Option(help="[NAMESPACE/]NAME of the Platform, for scenarios that act on it meanwhile.")
    ] = "",
    kubeconfig: Annotated[str | None, typer.Option(help="Way to its cluster; in a pod, the service account.")] = None,
    upgrade_to: Annotated[str, typer.Option(help="Version for rolling-upgrade; without it, services restart.")] = "",
    prometheus: Annotated[
        str, typer.Option(help="URL of a Prometheus that scrapes the platform: its figures go into the report.")
    ] = "",
    metrics: Metrics = "",
) -> None:
    """Run a scenario and judge it. Exit code: 0 passed, 1 failed, 2 void (it says nothing), 3 it could not be run.

    Latencies count from the time a request was meant to begin. Ctrl-C ends the load early; the report is still written.
    """
    try:
        wanted = judged_by(scaled(load(scenario), profile.factor * rate_factor, time_factor, profile.factor), slos)
        required(prometheus, platform, wanted, NO_PROMETHEUS)
        seeded = read_crowd(crowd).part(wanted.people) if crowd else None
        actor = Cluster(Target(platform, kubeconfig, upgrade_to)) if platform else None
        collector = RunCollector(wanted.name)
        if metrics:
            _serve_metrics(metrics, collector)
        done = asyncio.run(_perform(wanted, url, processes, seed, collector, seeded, actor))
    except (DocumentError, JourneyError, RunError, ApiError, ClusterError, FactsError) as error:
        raise _failed(str(error), Verdict.BROKEN) from error
    content, _, trouble = conclude(done, prometheus, platform)
    if trouble:
        errors.print(f"fanfold-loadtest: {trouble}", style="yellow", highlight=False, soft_wrap=True)
    folder = out / f"{wanted.name}-{new_run_id(done.started)}"
    write_all(folder, content)
    print_figures(console, content)
    console.print(f"  {folder / 'report.html'}", highlight=False, soft_wrap=True)
    raise typer.Exit(Verdict[content.verdict.upper()])


@app.command()
def canary(
    *,
    url: Url,
    every: Annotated[float, typer.Option(min=1, max=3600, help="Seconds between posts.")] = 10.0,
    metrics: Metrics = "127.0.0.1:9647",
) -> None:
    """Post a photograph every few seconds, measure when a follower sees it, tell Prometheus, until SIGTERM or Ctrl-C.

    It makes two accounts when it begins and deletes them when it ends; each post is deleted as soon as it was seen.
    """
    if metrics:
        _serve_metrics(metrics)
    console.print(
        f"canary at {url}, every {every:g} s{metrics and f'; metrics on http://{metrics}/metrics'}", highlight=False
    )
    try:
        asyncio.run(_sing(url, every))
    except (CanaryError, PhotosMissingError) as error:
        raise _failed(str(error)) from error


async def _sing(url: str, every: float) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Api(url) as api:
        await Canary(api, lambda line: errors.print(line, highlight=False, soft_wrap=True)).run(every, stop)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="result.json of a run.")],
    second: Annotated[Path, typer.Argument(help="result.json of another.")],
    html: Annotated[Path | None, typer.Option(help="Also write a report with both, one over the other.")] = None,
) -> None:
    """Tell whether two runs of one scenario differ by more than chance.

    Exit code: 0 nothing grew, 1 some percentile grew, 3 a file is unreadable or the runs cannot be compared.
    """
    try:
        one, other = read(first), read(second)
    except ResultError as error:
        raise _failed(str(error), Verdict.BROKEN) from error
    if one.scenario.mix != other.scenario.mix or one.scenario.model != other.scenario.model:
        raise _failed(
            "the two runs are of different scenarios: nothing can be said of their difference", Verdict.BROKEN
        )
    differences = compare_runs(recorder_of(one), recorder_of(other))
    print_differences(console, differences)
    if html is not None:
        html.write_text(comparison_report(one, other, differences), encoding="utf-8")
    raise typer.Exit(Verdict.FAILED if any(difference.low > 0 for difference in differences) else Verdict.PASSED)


async def _perform(  # noqa: PLR0917 - what the command asks for
    scenario: Scenario,
    url: str,
    processes: int,
    seed: int,
    collector: RunCollector,
    crowd: Crowd | None,
    actor: Actor | None,
) -> Run:
    with Live(console=console, refresh_per_second=4, transient=True) as display:

        def show(progress: Sequence[Progress], at: float) -> None:
            display.update(live(progress, at, scenario.seconds))
            collector.update(progress, at / scenario.seconds)

        return await perform(
            scenario, url, processes=processes, seed=seed, tell=_tell, show=show, crowd=crowd, actor=actor
        )


def _failed(message: str, code: Verdict = Verdict.FAILED) -> typer.Exit:
    errors.print(f"fanfold-loadtest: {message}", style="red", highlight=False, soft_wrap=True)
    return typer.Exit(code)


def main() -> None:
    """Entry point of the command ``fanfold-loadtest``."""
    app()
