"""A run's last words: they fit, they tell what matters most, and the operator understands them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from fanfold_loadtest.cli import app
from fanfold_loadtest.last_words import LIMIT_BYTES, Objective, Summary, broken, encoded
from fanfold_operator.planning import outcome


def said(**rest: object) -> Summary:
    return msgspec.convert({"verdict": "failed", "objectives": []} | rest, Summary)


def test_the_operator_reads_what_the_generator_says() -> None:
    objectives = [Objective("p99 of feed at most 250 ms", "300.0 ms", held=False), Objective("ages", "", held=None)]
    words = Summary(
        verdict="failed",
        reasons=["p99 of feed: 300 ms"],
        interrupted=True,
        objectives=objectives,
        per_second=49.5,
        p99_ms=300.0,
        location="s3://fanfold/x",
    )
    read = msgspec.json.decode(encoded(words), type=outcome.Summary)
    assert msgspec.to_builtins(read) == msgspec.to_builtins(words)
    assert msgspec.json.decode(encoded(broken("no gateway")), type=outcome.Summary).reasons == ["no gateway"]


@pytest.mark.parametrize("count", [0, 1, 30, 500])
@pytest.mark.parametrize("length", [10, 2_000])
@pytest.mark.parametrize("held", [True, False])
def test_they_fit_whatever_there_is_to_say(count: int, length: int, held: bool) -> None:
    objectives = [Objective(f"{n} ü" * length, "1 ms", held) for n in range(count)]
    words = said(reasons=[f"{n} missed: “{'x' * length}”" for n in range(count)], objectives=objectives)
    text = encoded(words)
    assert len(text) <= LIMIT_BYTES
    read = msgspec.json.decode(text, type=Summary)
    assert read.verdict == "failed"
    assert len(read.reasons) >= min(count, 1)
    if count:
        assert read.reasons[0].startswith("0 missed")


def test_objectives_that_held_are_left_out_first() -> None:
    held = [Objective("h" * 380, "1 ms", held=True) for _ in range(20)]
    missed = [Objective("m" * 380, "9 ms", held=False)]
    read = msgspec.json.decode(encoded(said(reasons=["why"], objectives=[*held, *missed])), type=Summary)
    assert read.objectives[-1] == missed[0]
    assert 3 < len(read.objectives) < 21


@pytest.mark.parametrize("name", ["ring-churn", "rolling-upgrade"])
def test_what_acts_on_the_platform_has_to_be_asked_for(name: str, tmp_path: Path) -> None:
    last = tmp_path / "last"
    words = ["pod", name, "--url", "http://127.0.0.1:9", f"--last-words={last}"]
    assert CliRunner().invoke(app, words).exit_code == 3
    read = msgspec.json.decode(last.read_bytes(), type=Summary)
    assert read.verdict == "broken"
    assert read.reasons[0].startswith(f"{name} acts on the platform it loads: set spec.acts")
