"""What people see. Everything here takes values and a console, and asks nobody."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from fanfold_operator.companion.pods import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fanfold_operator.companion.figures import Load
    from fanfold_operator.companion.lines import Line
    from fanfold_operator.companion.pods import Pod
    from fanfold_operator.companion.ring import Explanation
    from fanfold_operator.companion.tree import Platform, Service, Trouble

_LEVEL_STYLES: Final = {"debug": "dim", "info": "", "warning": "yellow", "error": "red", "critical": "bold red"}
_PREFIX_STYLES: Final = ("cyan", "green", "magenta", "blue", "yellow", "bright_cyan", "bright_green", "bright_magenta")
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def age(since: str, now: datetime) -> str:
    """``42s``, ``7m``, ``3h`` or ``12d``; ``?`` of no time."""
    if not since:
        return "?"
    seconds = max(0, int((now - datetime.fromisoformat(since)).total_seconds()))
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), (1, "s"))
    return f"{seconds // size}{unit}"


def status(platform: Platform, now: datetime | None = None) -> Tree:
    """A platform's tree."""
    now = now or datetime.now(UTC)
    tree = Tree(Text.from_markup(_headline(platform)), guide_style="dim")
    for note in _notes(platform):
        tree.add(Text.from_markup(note))
    for trouble in platform.troubles:
        tree.add(_trouble(trouble, now))
    for service in platform.services:
        branch = tree.add(_service(service))
        for trouble in service.troubles:
            branch.add(_trouble(trouble, now))
        for pod in service.pods:
            branch.add(_pod(pod, now))
    return tree


def ring(explanation: Explanation) -> Iterable[Table | Text]:
    """Slots by service, and where the user lands."""
    yield Text.from_markup(
        f"[bold]{escape(explanation.platform)}[/]  epoch {explanation.epoch}  checksum {explanation.checksum} "
        f"[green]verified[/]  {explanation.virtual_nodes} virtual nodes  bounded load {explanation.bounded_load:g}"
    )
    table = _table("SERVICE", "SLOT", "STATE", ">SHARE", "", "ADDRESS", "POD", "NODE")
    for service in explanation.services:
        for place, slot in enumerate(service.slots):
            style = "yellow" if slot.state == "draining" else ""
            _row(
                table,
                "" if place else service.service,
                slot.slot,
                slot.state,
                f"{slot.share:.2%}",
                "█" * round(slot.share * 20),
                slot.address,
                slot.pod or "?",
                slot.node or "?",
                style=style,
            )
        if not service.slots:
            _row(table, service.service, "none", "no replica is ready", style="red")
    yield table
    if explanation.user:
        yield Text.from_markup(
            f"\nuser {explanation.user}\nkey  {explanation.key}  (XXH3 of the id's 16 bytes; the next virtual node "
            "clockwise owns it)"
        )
        yield _landings(explanation)


def top(loads: Iterable[Load], *, by_pod: bool) -> Table:
    """Services with their load, and their pods if asked for."""
    table = _table("NAME", ">RATE", ">ERRORS", ">IN FLIGHT", ">P50", ">P99", ">CPU", ">MEMORY", "")
    for load in loads:
        _row(table, *_load(load))
        if by_pod:
            for pod in load.pods:
                _row(table, *_load(pod, indent="  "), style="dim")
    return table


def line(entry: Line) -> Text:
    """A log line behind its pod's coloured name."""
    style = _PREFIX_STYLES[sum(entry.pod.encode()) % len(_PREFIX_STYLES)]
    text = Text(f"{entry.pod} ", style=style, end="")
    text.append(entry.time[11:23], style="dim")
    if entry.level:
        text.append(f" {entry.level:<7}", style=_LEVEL_STYLES.get(entry.level, ""))
    text.append(f" {entry.event}", style=_LEVEL_STYLES.get(entry.level or "", ""))
    for name, value in entry.fields.items():
        text.append(f" {name}=", style="dim")
        text.append(str(value))
    return text


def _headline(platform: Platform) -> str:
    mark, style = ("●", "green") if platform.well else ("▲", "red")
    parts = [
        f"[{style}]{mark}[/] [bold]{escape(platform.namespace)}/{escape(platform.name)}[/]",
        f"{platform.ready} ready",
        escape(platform.version or "no version serves yet"),
    ]
    if platform.epoch is not None:
        draining = f", {platform.draining} draining" if platform.draining else ""
        took = f" in {platform.propagation}" if platform.propagation else ""
        parts.append(f"ring {platform.epoch} acked {platform.acked or '?'}{took}{draining}")
    if platform.url:
        parts.append(escape(platform.url))
    return "  ".join(parts)


def _notes(platform: Platform) -> Iterable[str]:
    if platform.paused:
        yield f"[yellow]paused: nothing but the ring is changed until kubectl fanfold resume {platform.name}[/]"
    if platform.stale:
        yield "[yellow]the operator has not looked at the newest spec yet[/]"
    if platform.upgrade:
        state = ", ".join(f"{name} {value}" for name, value in platform.upgrade.items())
        yield f"[cyan]upgrade: {escape(state)}[/]"
    if platform.progress:
        yield f"[cyan]under way: {escape(platform.progress)}[/]"


def _trouble(trouble: Trouble, now: datetime) -> Text:
    text = Text(f"✗ {trouble.type} {trouble.reason} ", style="red")
    return text.append(f"for {age(trouble.since, now)}: {one_line(trouble.message)}", style="default")


def _service(service: Service) -> Text:
    text = Text("✓ " if service.well else "✗ ", style="green" if service.well else "red")
    text.append(service.name, style="bold" if service.kind == "service" else "")
    text.append(f"  {service.ready}" if service.kind == "service" else f"  {service.kind}  {service.ready}")
    if service.bounds:
        scaling = service.scaling or {}
        by = f" by {scaling['by']}" if "by" in scaling else ""
        wants = f", wants {scaling['desired']}" if "desired" in scaling else ""
        why = f" ({scaling['why']})" if scaling.get("why") else ""
        text.append(f"  scales {service.bounds[0]} to {service.bounds[1]}{by}{wants}{why}", style="dim")
    if service.version:
        text.append(f"  {service.version}", style="dim")
    return text


def _pod(pod: Pod, now: datetime) -> Text:
    text = Text(f"{pod.name}  ", style="" if pod.ready else "yellow")
    text.append(pod.state, style="dim" if pod.ready else "yellow")
    if pod.why:
        text.append(f": {pod.why}", style="yellow")
    text.append(f"  {pod.node or 'no node'}  {age(pod.created, now)}", style="dim")
    if pod.restarts:
        text.append(f"  {pod.restarts} restarts", style="yellow")
        if pod.last_exit:
            reason, _, when = pod.last_exit.partition(" ")
            text.append(f", the last after {reason}" + (f" {age(when, now)} ago" if when else ""), style="yellow")
    return text


def _landings(explanation: Explanation) -> Table:
    table = _table("SERVICE", "VIRTUAL NODE", "POSITION", "SLOT", "ADDRESS", "POD", "NODE", "THEN, IF FULL")
    for landing in explanation.landings:
        home = landing.home
        place = (home.slot, home.address, home.pod or "?", home.node or "?")
        then = ", ".join(landing.then) or "-"
        _row(table, landing.service, landing.virtual_node, landing.position, *place, then)
    return table


def _load(load: Load, indent: str = "") -> tuple[str, ...]:
    unit = "ev/s" if load.unit == "events" else "rq/s"
    return (
        indent + load.name,
        "-" if load.rate is None else f"{load.rate:.1f} {unit}",
        "-" if load.errors is None else f"{load.errors:.1f}",
        "-" if load.in_flight is None else str(load.in_flight),
        _duration(load.p50),
        _duration(load.p99),
        "-" if load.cpu is None else f"{load.cpu * 1000:.0f}m",
        "-" if load.memory is None else f"{load.memory / 2**20:.0f}Mi",
        load.problem or "",
    )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _table(*columns: str) -> Table:
    """Columns as kubectl prints them; ``>`` aligns to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left", no_wrap=True)
    return table


def _row(table: Table, *cells: str, style: str = "") -> None:
    """As it is: brackets of an IPv6 address are no markup."""
    table.add_row(*map(Text, cells), style=style)
