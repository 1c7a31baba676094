"""Commands of the tools, each with a log of its own."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tools import progress


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / ".build" / "logs"
    monkeypatch.setattr(progress, "ROOT", tmp_path)
    monkeypatch.setattr(progress, "LOGS", folder)
    return folder


def answer(text: str) -> str:
    """What a command printed that takes its time for two lines."""
    script = f"import time; print('{text}', flush=True); time.sleep(0.1); print('{text}')"
    return progress.command("same", [sys.executable, "-c", script], seconds=60)


def test_commands_of_one_name_at_the_same_time_read_their_own_output(logs: Path) -> None:
    words = [letter * size for letter, size in zip("abcd", (5000, 200, 3000, 1), strict=True)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(answer, words))
    assert answers == [f"{word}\n{word}\n" for word in words]
    assert [path.name for path in logs.iterdir()] == ["same.log"]
    assert (logs / "same.log").read_text() in answers


def test_a_failure_shows_the_end_of_its_log_and_where_it_is(logs: Path) -> None:
    words = [sys.executable, "-c", "print('first'); raise SystemExit('the reason')"]
    with pytest.raises(progress.StageError, match=r"the reason\s+build: exit code 1; .*\.build/logs/build\.log"):
        progress.command("build", words, seconds=60)
    assert (logs / "build.log").read_text().startswith(("first", "the reason"))


def test_one_that_does_not_end_is_ended() -> None:
    with pytest.raises(progress.StageError, match="no end within 1 s"):
        progress.command("sleep", [sys.executable, "-c", "import time; time.sleep(60)"], seconds=1)
    with pytest.raises(progress.StageError, match="is not there"):
        progress.command("nothing", ["/no/such/command"], seconds=1)
