"""See photo feed platforms: what runs, what waits and why, where users land, what is logged, and the load.

Exit codes: 0 all is well, 1 something is not, 2 it could not be told (usage, not found, no access).
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer
from rich.console import Console, Group
from rich.live import Live

from fanfold.contracts.components import BY_NAME
from fanfold.contracts.resources import PAUSED_ANNOTATION
from fanfold_operator.api import ApiError
from fanfold_operator.companion import completion, figures, follow, lines, pods, render, ring, tree
from fanfold_operator.companion.access import CompanionError, Where, advice, connected
from fanfold_operator.companion.ring import RingError
from fanfold_operator.conditions import find
from fanfold_operator.resources import meta

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from rich.console import RenderableType

    from fanfold_operator.companion.access import Cluster
    from fanfold_operator.companion.tree import Platform
    from fanfold_operator.kinds import Manifest

app = typer.Typer(name=completion.PROGRAM, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)

WATCH_SECONDS: Final = 2.0
ACK_SECONDS: Final = 10.0
"""How long `pause` and `resume` wait for the operator to say that it has seen it."""


class Output(StrEnum):
    """How to print: for people, or for programs."""

    TABLE = "table"
    JSON = "json"


class Level(StrEnum):
    """Least level of lines."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


Name = Annotated[
    str | None,
    typer.Argument(
        metavar="[PLATFORM]", help="Its name; not needed if it is the only one.", autocompletion=completion.platforms
    ),
]
Namespace = Annotated[str | None, typer.Option("-n", "--namespace", help="Its namespace. Default: the context's.")]
All = Annotated[bool, typer.Option("-A", "--all-namespaces", help="Look in all namespaces.")]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig.", autocompletion=completion.contexts)]
Kubeconfig = Annotated[str | None, typer.Option(help="Path of the kubeconfig. Default: KUBECONFIG, ~/.kube/config.")]
Format = Annotated[Output, typer.Option("-o", "--output", help="How to print.")]
Service = Annotated[
    list[str] | None,
    typer.Option("-s", "--service", help="This service only; may be repeated.", autocompletion=completion.services),
]


@app.command()
def status(
    *,
    name: Name = None,
    namespace: Namespace = None,
    all_namespaces: All = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: Format = Output.TABLE,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Go on showing it, until Ctrl-C.")] = False,
) -> None:
    """Show platforms with their services and pods, what waits and why. Exit code 1 if one is not well."""
    where = Where(namespace, all_namespaces, context, kubeconfig)
    if watch and output is Output.JSON:
        raise _fail("--watch is for people: call it again for more -o json")
    platforms = _run(_watch(where, name) if watch else _observe(where, name))
    if output is Output.JSON:
        _print_json({"platforms": platforms})
    elif not watch:
        _console().print(_forest(platforms))
    if not all(platform.well for platform in platforms):
        raise typer.Exit(1)


@app.command(name="ring")
def show_ring(
    *,
    name: Name = None,
    user: Annotated[str | None, typer.Option(help="Id of a user: show where its requests go, and why.")] = None,
    service: Service = None,
    namespace: Namespace = None,
    all_namespaces: All = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: Format = Output.TABLE,
) -> None:
    """Show slots, who holds them and their exact share of all users; exit code 1 if a service has none."""
    if service and len(service) > 1:
        raise _fail("ring takes one --service, or none for all")

    async def read(cluster: Cluster) -> ring.Explanation:
        platform = await cluster.platform(name)
        config_map, manifests = await asyncio.gather(cluster.snapshot_map(platform), cluster.pods(platform))
        snapshot = ring.snapshot_of(config_map, meta.snapshot_name(platform["metadata"]["name"]))
        return ring.explain(snapshot, map(pods.read, manifests), service[0] if service else None, user)

    explanation = _run(_with(Where(namespace, all_namespaces, context, kubeconfig), read))
    if output is Output.JSON:
        _print_json(explanation)
    else:
        _console().print(*render.ring(explanation), sep="\n")
    if not all(one.slots for one in explanation.services):
        raise typer.Exit(1)


@app.command()
def pause(
    *,
    name: Name = None,
    namespace: Namespace = None,
    all_namespaces: All = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Stop the operator from changing a platform; the ring stays true. Waits until the operator says so."""
    _turn(name, Where(namespace, all_namespaces, context, kubeconfig), paused=True)


@app.command()
def resume(
    *,
    name: Name = None,
    namespace: Namespace = None,
    all_namespaces: All = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Let the operator work on a platform again. Waits until the operator says so."""
    _turn(name, Where(namespace, all_namespaces, context, kubeconfig), paused=False)


@app.command()
def logs(
    *,
    name: Name = None,
    service: Service = None,
    follow_on: Annotated[bool, typer.Option("-f", "--follow", help="Go on with new lines, of new pods too.")] = False,
    since: Annotated[str | None, typer.Option(help="Only lines of the last 90s, 5m, 2h30m or 1d.")] = None,
    tail: Annotated[
        int | None, typer.Option(min=0, help="Last lines of each pod. Default: 100, or all with --since.")
    ] = None,
    level: Annotated[Level | None, typer.Option(help="Only lines of at least this level.")] = None,
    grep: Annotated[str | None, typer.Option(help="Only lines that this regular expression finds.")] = None,
    namespace: Namespace = None,
    all_namespaces: All = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: Format = Output.TABLE,
) -> None:
    """Merge the logs of a platform's pods in the order of time. -o json: one object a line."""
    past = follow.Range(100 if tail is None and since is None else tail, _seconds(since))
    choice = lines.Choice(level.value if level else None, _pattern(grep))
    console = _console()

    def show(line: lines.Line) -> None:
        if not choice(line):
            return
        if output is Output.JSON:
            _print_json_line(line)
        else:
            console.print(render.line(line), soft_wrap=True, end="\n")

    async def read(cluster: Cluster) -> None:
        platform = await cluster.platform(name)
        chosen = await follow.members(cluster, platform, service or ())
        if not chosen and not follow_on:
            raise CompanionError(_no_pods(platform, service))
        last: dict[str, str] = {}
        for line in lines.merged(await follow.history(cluster, platform["metadata"]["namespace"], chosen, past)):
            last[line.pod] = line.time
            show(line)
        if follow_on:
            await follow.follow(cluster, platform, service or (), last, show)

    _run(_with(Where(namespace, all_namespaces, context, kubeconfig), read))


@app.command()
def top(
    *,
    name: Name = None,
    by_pod: Annotated[bool, typer.Option("--pods", help="Each pod too.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.5, max=60, help="Seconds between the two readings rates are taken from.")
    ] = 2.0,
    namespace: Namespace = None,
    all_namespaces: All = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: Format = Output.TABLE,
) -> None:
    """Show requests, latencies, CPU and memory of every service, measured now."""

    async def read(cluster: Cluster) -> tuple[figures.Load, ...]:
        platform = await cluster.platform(name)
        return await _measure(cluster, platform, interval)

    loads = _run(_with(Where(namespace, all_namespaces, context, kubeconfig), read))
    if output is Output.JSON:
        _print_json({"seconds": interval, "services": loads})
    else:
        _console().print(render.top(loads, by_pod=by_pod))


async def _measure(cluster: Cluster, platform: Manifest, interval: float) -> tuple[figures.Load, ...]:
    namespace = platform["metadata"]["namespace"]
    serving = {pod.name: pod.service for pod in map(pods.read, await cluster.pods(platform)) if pod.service in BY_NAME}
    if not serving:
        raise CompanionError(_no_pods(platform, None))
    before = await cluster.metrics(namespace, serving, figures.NAMES)
    started = time.monotonic()
    await asyncio.sleep(interval)
    passed = time.monotonic() - started
    after, usage = await asyncio.gather(cluster.metrics(namespace, serving, figures.NAMES), cluster.usage(platform))
    used = figures.usages(usage)
    return figures.loads(
        figures.Reading(service, pod, before[pod], after[pod], passed, used.get(pod))
        for pod, service in serving.items()
    )


async def _observe(where: Where, name: str | None) -> tuple[Platform, ...]:
    async with connected(where) as cluster:
        return await _look(cluster, name)


async def _look(cluster: Cluster, name: str | None) -> tuple[Platform, ...]:
    platforms = tree.grow(await cluster.observe(name))
    if not platforms:
        place = f"namespace {cluster.namespace}" if cluster.namespace else "any namespace"
        raise CompanionError(f"there is no Platform in {place}: choose another with -n, or look at all with -A")
    return platforms


async def _watch(where: Where, name: str | None) -> tuple[Platform, ...]:
    """Show it anew every two seconds; what was seen last."""
    console = _console()
    async with connected(where) as cluster:
        platforms = await _look(cluster, name)
        with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
            problem = ""
            try:
                while True:
                    live.update(Group(_forest(platforms), problem), refresh=True)
                    await asyncio.sleep(WATCH_SECONDS)
                    try:
                        platforms, problem = await _look(cluster, name), ""
                    except ApiError as error:  # shown beside the last picture: watching an outage is what it is for
                        problem = f"{datetime.now(UTC):%H:%M:%S} {advice(error)}"
            except asyncio.CancelledError:
                return platforms


def _turn(name: str | None, where: Where, *, paused: bool) -> None:
    async def write(cluster: Cluster) -> tuple[str, bool, bool]:
        platform = await cluster.platform(name)
        label = f"platform {platform['metadata']['namespace']}/{platform['metadata']['name']}"
        if (platform["metadata"].get("annotations", {}).get(PAUSED_ANNOTATION) == "true") == paused:
            return label, False, True
        written = await cluster.set_paused(platform, paused=paused)
        return label, True, await _acknowledged(cluster, written, paused=paused)

    label, changed, acknowledged = _run(_with(where, write))
    console = _console()
    if not changed:
        console.print(f"{label} is {'paused' if paused else 'not paused'} already", highlight=False)
        return
    now = "paused: nothing but its ring is changed" if paused else "resumed: the operator works on it again"
    console.print(f"{label} {now}", highlight=False)
    if not acknowledged:
        raise _fail(f"the operator has not taken notice in {ACK_SECONDS:.0f} s: is it running?", 1)


async def _acknowledged(cluster: Cluster, platform: Manifest, *, paused: bool) -> bool:
    """Whether the condition `Paused` says so in time."""
    deadline = time.monotonic() + ACK_SECONDS
    while time.monotonic() < deadline:
        condition = find(platform, "Paused")
        if condition and (condition["status"] == "True") == paused:
            return True
        await asyncio.sleep(0.2)
        platform = await cluster.again(platform)
    return False


def _with(where: Where, work: Any) -> Any:
    async def inside() -> Any:
        async with connected(where) as cluster:
            return await work(cluster)

    return inside()


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return asyncio.run(work)
    except (CompanionError, RingError) as error:
        raise _fail(str(error)) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _no_pods(platform: Manifest, service: list[str] | None) -> str:
    name = platform["metadata"]["name"]
    what = f"service {' or '.join(service)} of " if service else ""
    return f"there are no pods of {what}platform {name}: see kubectl fanfold status {name}"


def _seconds(since: str | None) -> int | None:
    try:
        return None if since is None else lines.seconds(since)
    except ValueError as error:
        raise _fail(f"--since: {error}") from error


def _pattern(grep: str | None) -> re.Pattern[str] | None:
    try:
        return None if grep is None else re.compile(grep)
    except re.error as error:
        raise _fail(f"--grep: {grep!r} is no regular expression: {error}") from error


def _forest(platforms: tuple[Platform, ...]) -> RenderableType:
    now = datetime.now(UTC)
    return Group(*(render.status(platform, now) for platform in platforms))


def _console() -> Console:
    """As wide as the terminal; in a pipe, as wide as the text."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=400)


def _print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def _print_json_line(value: Any) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def _fail(message: str, code: int = 2) -> typer.Exit:
    typer.secho(f"{completion.PROGRAM}: {message}", fg="red", err=True)
    return typer.Exit(code)


def main() -> None:
    """Entry point of ``kubectl-fanfold``."""
    app()
