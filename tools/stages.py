"""The test stages: ``python -m tools.stages all|fast|lint|long``."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tools.progress import ROOT, StageError, Stages, command, fail, say

Stage = tuple[str, Callable[[], str | None]]
SIDE_BY_SIDE: Final = ("-n", "2", "--dist", "loadfile")
"""Two processes share the files of a stage. Each has stores, or an API server, of its own."""
LOOKED_AT_TWICE: Final = 3
"""More tests than these do not fail by bad luck together."""
TESTS_FAILED: Final = 1
"""pytest's exit code when all tests have run and some failed."""


def _lint() -> None:
    command("lint", ["ruff", "check", "."], seconds=300)
    command("format", ["ruff", "format", "--check", "."], seconds=300)


def _types() -> None:
    command("types", ["mypy"], seconds=900)


def _contracts() -> None:
    command("contracts", ["lint-imports"], seconds=300)


def _pytest(name: str, *arguments: str, seconds: float) -> Callable[[], str]:
    """A stage of tests; ``SIDE_BY_SIDE`` among the arguments where they wait more than they compute.

    Up to ``LOOKED_AT_TWICE`` tests that fail run once more, in a process and with stores of their own: one that passes
    then is named as unsteady and does not fail the stage, see CONTRIBUTING.md for why.
    """

    def attempt(suffix: str, *more: str) -> str:
        report = ROOT / ".build" / "reports" / f"{name}{suffix}.xml"
        report.parent.mkdir(parents=True, exist_ok=True)
        words = ["pytest", "-q", f"--junitxml={report}", "--durations=10", *more, *arguments]
        text = command(f"{name}{suffix}", words, seconds=seconds)
        for line in re.findall(r"^SKIPPED .*$", text, re.MULTILINE):
            say(f"    {line}")
        return text.strip().splitlines()[-1].strip("= ")

    def work() -> str:
        try:
            return attempt("")
        except StageError as error:
            failed = re.findall(r"^(?:FAILED|ERROR) .*$", error.output, re.MULTILINE)
            # Any other code: not all tests have run, and a second try of these would let the rest pass unseen.
            if error.code != TESTS_FAILED or not 0 < len(failed) <= LOOKED_AT_TWICE:
                raise
            say(str(error))
        second = attempt("-again", "--last-failed", "--last-failed-no-failures=none")
        for line in failed:
            say(f"    UNSTEADY, passed at a second try: {line}")
        return f"{len(failed)} UNSTEADY; at the second try: {second}"

    return work


def _build_cluster() -> None:
    command("build-cluster", [ROOT / "cluster" / "build.sh"], seconds=1800)
    command("cluster-packages", [ROOT / "cluster" / "install-deps.sh"], seconds=600)


def _build_images() -> None:
    command("build-images", [ROOT / "images" / "build.sh"], seconds=1800)


def _helm() -> None:
    command("install-helm", [ROOT / "tools" / "install-helm.sh"], seconds=900)


def _prometheus() -> None:
    command("install-prometheus", [ROOT / "tools" / "install-prometheus.sh"], seconds=300)


def _chromium() -> None:
    command("install-chromium", [ROOT / "tools" / "install-chromium.sh"], seconds=1800)


def _go() -> None:
    command("cluster-go", [ROOT / "cluster" / "test.sh"], seconds=1200)


LINT: tuple[Stage, ...] = (("lint", _lint), ("types", _types), ("import contracts", _contracts))
UNIT: tuple[Stage, ...] = (
    ("install prometheus", _prometheus),
    ("unit", _pytest("unit", "tests/unit", "tests/contract", "tests/architecture", seconds=600)),
)
ALL: tuple[Stage, ...] = (
    *LINT,
    *UNIT,
    ("install chromium", _chromium),
    (
        "services on real stores",
        _pytest("integration", "tests/integration", "-m", "not cluster and not long", *SIDE_BY_SIDE, seconds=2400),
    ),
    ("build the cluster", _build_cluster),
    ("cluster's own tests", _go),
    ("faults behind a gateway", _pytest("fault", "tests/fault", seconds=600)),
    ("install helm", _helm),
    ("operator on a real API server", _pytest("operator", "tests/integration", "-m", "cluster", seconds=1800)),
    ("chart", _pytest("chart", "tests/chart", seconds=300)),
    ("build the images", _build_images),
    ("end to end on the native cluster", _pytest("e2e", "tests/e2e", "-m", "not long", "--timeout=900", seconds=2700)),
)
EXPLORED: Final = ("tests/unit", "tests/integration/feed", "tests/integration/follow", "tests/integration/profile")
LONG: tuple[Stage, ...] = (
    ("build the cluster", _build_cluster),
    ("install helm", _helm),
    ("build the images", _build_images),
    ("other examples of every property", _pytest("explore", *EXPLORED, "--hypothesis-profile=explore", seconds=1800)),
    ("the whole document", _pytest("long-api", "tests/integration/api", "-m", "long", seconds=600)),
    ("two nodes, and a load that rises and falls", _pytest("long", "tests/e2e", "-m", "long", seconds=3600)),
)
"""What would double the time of a change on its way in: run it before a release."""
SETS = {"all": ALL, "fast": (*LINT, *UNIT), "lint": LINT, "long": LONG}


def main(arguments: list[str]) -> None:
    """Run one set of stages; exits with 1 at the first that fails, or after the last with ``KEEP_GOING=1``."""
    if len(arguments) != 1 or arguments[0] not in SETS:
        fail(f"usage: python -m tools.stages {'|'.join(SETS)}", 2)
    chosen = SETS[arguments[0]]
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    stages = Stages(len(chosen))
    failed = []
    for name, work in chosen:
        try:
            stages.run(name, work)
        except StageError as error:
            if os.environ.get("KEEP_GOING") != "1":
                fail(str(error))
            say(str(error))
            failed.append(name)
    if failed:
        fail(f"failed: {', '.join(failed)}")
    say(f"all {len(chosen)} stages passed in {sum(stages.seconds.values()):.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
