"""Write docs/performance.md from ``benchmarks/results/*.json``: no figure in it is typed by hand.

uv run python benchmarks/performance.py
"""

from __future__ import annotations

import json
from typing import Any, Final

from common.processes import ROOT
from common.results import FOLDER
from common.tables import number, spread, table
from overload import kept

PAGE: Final = ROOT / "docs" / "performance.md"
_ORDER: Final = (
    "gateway",
    "gateway_features",
    "feed_read",
    "compression",
    "churn",
    "overload",
    "websockets",
    "fanout",
    "photos",
    "likes",
    "generator",
    "celebrity",
)
NAMES: Final = tuple(name for name in _ORDER if (FOLDER / f"{name}.json").exists())
"""What has been measured, in the order of the page: a benchmark without results has no section."""
_INTRODUCTION: Final = """# Performance

Written by `uv run python benchmarks/performance.py` from the results of the runs named below; `make bench` makes them
anew. Every figure is the median of interleaved rounds, with the least and the most of them behind it. CPU time is what
the kernel counted for a process and its children. The load comes from the same machine and takes its share of it:
figures are for comparison within one run, not promises. A machine shared with other work makes all of them worse and
their spread wider: the load average of each run is given."""


def main() -> None:
    results = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in NAMES}
    PAGE.write_text(page(results))


def page(results: dict[str, dict[str, Any]]) -> str:
    """The whole document.

    Args:
        results: By benchmark, as `common.results.save` wrote them.
    """
    sections = [_INTRODUCTION]
    for name in NAMES:
        result = results[name]
        sections += [_TITLES[name], _origin(result), *_SECTIONS[name](result["figures"])]
        sections.append("\n".join(f"- {note}" for note in result["notes"]))
    return "\n\n".join(sections) + "\n"


def _origin(result: dict[str, Any]) -> str:
    machine = result["machine"]
    busy = machine["load_before"] > machine["cores"]
    warning = " **The machine was busy with other work: compare within this run only.**" if busy else ""
    return (
        f"`{result['command']}`, {result['date']}, commit {result['commit'] or 'unknown'}: {machine['cores']} cores of "
        f"{machine['cpu']}, {machine['memory_gib']} GiB, Linux {machine['kernel']}, Python {machine['python']}, load "
        f"average {machine['load_before']}.{warning}"
    )


def _gateway(figures: dict[str, Any]) -> list[str]:
    peers = figures["peers"]
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    rows = []
    for peer in sorted(peers.values(), key=lambda one: -one["per_core_second"]["median"]):
        ratio = peers["fanfold"]["per_core_second"]["median"] / peer["per_core_second"]["median"]
        rows.append(
            [
                peer["title"],
                spread(peer["per_core_second"]),
                f"{ratio:.2f}",
                spread(peer["p50_ms"], 2),
                spread(peer["p99_ms"], 2),
            ]
        )
    rate = number(peers["fanfold"]["rate"])
    head = ["proxy", "requests a core-second", "Fanfold by it", f"p50 at {rate}/s, ms", "p99, ms"]
    introduction = (
        f"All do the same before the same upstreams ({versions}): verify the token, hash consistently on the user, "
        "bound the load, count. Each is checked for that first."
    )
    return [introduction, table(head, rows)]


def _gateway_features(figures: dict[str, Any]) -> list[str]:
    usual = figures["with its defaults"]["min"]
    rows = [[name, number(one["min"], 1), f"{one['min'] - usual:+.1f}"] for name, one in figures.items()]
    introduction = (
        "The gateway's real connections on transports in memory, without kernel or event loop: what its own code takes "
        "of a request, and what a feature adds to that. The least of all rounds counts, for whatever else the machine "
        "does only adds; differences of a microsecond or two are within what is left of that."
    )
    return [introduction, table(["a request and its answer", "CPU, µs", "more than usual"], rows)]


def _feed_read(figures: dict[str, Any]) -> list[str]:
    ways = {
        "valkey": "straight from Valkey (the limit)",
        "fanfold": "through the gateway",
        "brute": "FastAPI + SQLModel, SQL for each read",
    }
    rows = [[title, spread(figures[name]["rate"])] for name, title in ways.items()]
    budget = figures["fanfold"]["budget_us"]
    total = sum(hop["median"] for hop in budget.values())
    hops = [[name, spread(hop, 1), f"{100 * hop['median'] / total:.0f} %"] for name, hop in budget.items()]
    brute = figures["brute"]["budget_us"]
    half = figures["half_load"]
    calm = (
        f"The SQL feed takes {number(sum(hop['median'] for hop in brute.values()))} µs a read. At half of its rate "
        f"({number(half['rate'])}/s, open model) a read through the gateway takes {spread(half['p50_ms'], 1)} ms at "
        f"the median and {spread(half['p99_ms'], 1)} ms at p99."
    )
    return [
        table(["warm feed reads", "a second"], rows),
        "What one read through the gateway costs, by hop (CPU microseconds):",
        table(["hop", "µs a read", "share"], [*hops, ["all", f"{total:.0f}", ""]]),
        calm,
    ]


def _compression(figures: dict[str, Any]) -> list[str]:
    rows = [
        [name, number(way["us"], 1), number(way["bytes"]), f"{100 * way['bytes'] / figures['bytes']:.0f} %"]
        for name, way in figures["ways"].items()
    ]
    introduction = f"A page of twenty posts has {number(figures['bytes'])} bytes. Chosen: isal 1 as `gzip`, and br 1."
    return [introduction, table(["way and level", "CPU, µs", "bytes", "of the page"], rows)]


def _churn(figures: dict[str, Any]) -> list[str]:
    calm = figures["phases"][0]
    rows = [
        [
            phase["phase"],
            number(phase["requests"]),
            f"{100 * phase['moved']:.1f} %",
            number(phase["p50_ms"], 1),
            number(phase["p99_ms"], 1),
            f"{phase['p99_ms'] - calm['p99_ms']:+.1f}",
            number(phase["max_ms"], 1),
        ]
        for phase in figures["phases"]
    ]
    head = ["phase", "requests", "users moved", "p50, ms", "p99, ms", "p99 added, ms", "most, ms"]
    return [
        f"**{figures['errors']} errors** in {number(figures['requests'])} requests.",
        table(head, rows),
    ]


def _overload(figures: dict[str, Any]) -> list[str]:
    rows = [
        [
            f"{with_limits['load']:.1f}x",
            number(with_limits["goodput"]),
            f"{100 * with_limits['shed']:.0f} %",
            number(with_limits["p99_ms"]),
            number(without["goodput"]),
            number(without["p99_ms"]),
        ]
        for with_limits, without in zip(figures["adaptive"], figures["unlimited"], strict=True)
    ]
    head = ["offered", "goodput/s", "shed", "p99 of accepted, ms", "goodput/s without limits", "p99 without, ms"]
    introduction = (
        f"Capacity of the services: {number(figures['capacity'])}/s. Past it the gateway keeps "
        f"**{100 * kept(figures['adaptive']):.0f} %** of its best goodput."
    )
    return [introduction, table(head, rows)]


def _websockets(figures: dict[str, Any]) -> list[str]:
    count, idle = figures["sockets"], figures["idle_cpu_share"]
    rows = [
        [
            number(int(rate)),
            spread(found["p50_ms"], 1),
            spread(found["p99_ms"], 1),
            spread(found["cpu_us"]),
            spread(found["per_core_second"]),
        ]
        for rate, found in figures["deliveries"].items()
    ]
    introduction = (
        f"{number(count)} open sockets take **{figures['memory_mb']:.0f} MB** more than at rest "
        f"({number(figures['bytes_per_socket'])} bytes each) and, while idle, **{100 * idle:.1f} %** of a core: "
        f"by its time alone a core would hold {number(round(figures['idle_per_core'], -4))}. A handshake takes "
        f"{number(figures['cpu_us_per_handshake'])} µs of CPU. A gateway that leaves has told all of them within "
        f"{figures['told_to_leave_seconds']:.1f} s. The cost of a message holds its share of all pings meanwhile: "
        "where there are few messages, most of it."
    )
    head = ["messages a second", "age p50, ms", "age p99, ms", "gateway, µs each", "a core-second"]
    return [introduction, table(head, rows)]


def _fanout(figures: dict[str, Any]) -> list[str]:
    ways = {
        "queue": "through the queue: event, pages of followers, chunks, one script per 500 feeds",
        "pipelined": "sorted sets, looked at, added to and cut by pipelined commands, without a queue",
        "jobs": "sorted sets, one job per follower on a stream",
    }
    queue = figures["deliveries"]["queue"]["median"]
    rows = [
        [title, spread(figures["deliveries"][name]), f"{queue / figures['deliveries'][name]['median']:.1f}"]
        for name, title in ways.items()
    ]
    hops = [[name, spread(hop, 2)] for name, hop in figures["budget_us"].items()]
    cold = [[f"{int(count):,} followees", spread(times, 1)] for count, times in figures["cold_read_ms"].items()]
    last = figures["last_follower"]
    modes = [
        ["pushed in batches (`batched`)", spread(last["batched_seconds"], 2)],
        ["folded in on read (`pull`)", spread(last["pull_seconds"], 2)],
    ]
    return [
        table(["deliveries into warm feeds", "a second", "the queue by it"], rows),
        "What one of them costs through the queue, by process (CPU microseconds):",
        table(["process", "µs a delivery"], hops),
        f"A cached feed, just built, takes **{number(figures['feed_bytes'])} bytes** of Valkey.",
        table(["a cold feed read", "ms"], cold),
        table(["until the last of the crowd sees a post", "seconds"], modes),
    ]


def _photos(figures: dict[str, Any]) -> list[str]:
    ways = {"fanfold": "Fanfold", "plain": "plain Pillow"}
    rows = [
        [title, spread(figures[name]["per_core_second"], 2), spread(figures[name]["peak_mib"])]
        for name, title in ways.items()
    ]
    return [table(["photos", "a core-second", "most memory, MiB"], rows)]


def _likes(figures: dict[str, Any]) -> list[str]:
    ways = {"kept": "kept for seconds, counted once however many ask", "each": "a COUNT for each read"}
    rows = [
        [
            title,
            spread(figures["ways"][name]["of_one"]),
            spread(figures["ways"][name]["of_others"]),
            spread(figures["ways"][name]["others_p50_ms"], 1),
            spread(figures["ways"][name]["others_p99_ms"], 1),
        ]
        for name, title in ways.items()
    ]
    head = ["counts of the one post", "its reads a second", "others' a second", "others' p50, ms", "p99, ms"]
    return [f"One COUNT alone takes {spread(figures['count_ms'], 1)} ms.", table(head, rows)]


def _generator(figures: dict[str, Any]) -> list[str]:
    generators = figures["generators"]
    rows = [
        [
            one["title"],
            spread(one["per_core_second"]),
            spread(one["cpu_us"]),
            spread(one["p50_ms"], 2),
            spread(one["p99_ms"], 2),
        ]
        for one in sorted(generators.values(), key=lambda one: -one["per_core_second"]["median"])
    ]
    rate = number(figures["rate"])
    head = ["generator", "requests a core-second", f"CPU at {rate}/s, µs a request", "p50 reported, ms", "p99, ms"]
    ratio = generators["fanfold"]["per_core_second"]["median"] / generators["locust"]["per_core_second"]["median"]
    introduction = (
        f"Recording and scheduling leave {100 * ratio:.0f} % of what plain Locust sends. The server answers at once: "
        f"what is reported at {rate}/s is mostly the generator's own. There the cost of waking dominates: with a time "
        "of its own each request wakes its process twice, vegeta's too, while plain Locust's users wait alike and wake "
        "together."
    )
    return [introduction, table(head, rows)]


def _celebrity(figures: dict[str, Any]) -> list[str]:
    rows = []
    for run in figures["runs"]:
        pairs = ((run["p50_ms"][phase], run["p99_ms"][phase]) for phase in run["p50_ms"])
        times = ["none answered" if None in pair else "{:.1f} / {:.0f}".format(*pair) for pair in pairs]
        last = "not in 30" if run["last_follower_s"] is None else f"{run['last_follower_s']:.2f}"
        rows.append([run["mode"], number(run["followers"]), *times, last, number(run["failed"]), run["verdict"]])
    head = [
        "mode",
        "followers",
        "feed p50 / p99 before, ms",
        "during",
        "after",
        "last follower, s",
        "failed",
        "verdict",
    ]
    seeding = [[number(one["people"]), number(one["follows"]), f"{one['seconds']:.1f}"] for one in figures["seeding"]]
    introduction = (
        "The run waits until the posts that it prepared itself with have arrived, then three more follow, a third of a "
        "phase apart: where one comes before the one before it has arrived, its last follower waits for both."
    )
    return [introduction, table(head, rows), "To seed a graph:", table(["people", "follows", "seconds"], seeding)]


_TITLES: Final = {
    "gateway": "## The gateway beside its peers",
    "gateway_features": "## What the gateway's features cost",
    "feed_read": "## Reading a feed",
    "compression": "## Compressed answers",
    "churn": "## Members that come and go",
    "overload": "## More than there is room for",
    "websockets": "## WebSockets",
    "fanout": "## A post's way to its followers",
    "photos": "## Photos",
    "likes": "## A post with a million likes",
    "generator": "## The load generator",
    "celebrity": "## A celebrity posts",
}
_SECTIONS: Final = {
    "gateway": _gateway,
    "gateway_features": _gateway_features,
    "feed_read": _feed_read,
    "compression": _compression,
    "churn": _churn,
    "overload": _overload,
    "websockets": _websockets,
    "fanout": _fanout,
    "photos": _photos,
    "likes": _likes,
    "generator": _generator,
    "celebrity": _celebrity,
}


if __name__ == "__main__":
    main()
