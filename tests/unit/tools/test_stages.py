"""Stages of tests: what fails once is looked at again, and named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import progress, stages

ONCE = """
from pathlib import Path

def test_good(): pass

def test_unlucky():
    seen = Path(__file__).with_name("seen")
    lucky, _ = seen.exists(), seen.touch()
    assert lucky, "the first time"
"""
BROKEN = "def test_good(): pass\ndef test_broken(): assert not 'ever'\n"
MANY = "import pytest\n@pytest.mark.parametrize('n', range({count}))\ndef test_broken(n): assert n < 0\n"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(progress, "ROOT", tmp_path)
    monkeypatch.setattr(progress, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(stages, "ROOT", tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take most of a second to import
    return tmp_path


def run(root: Path, text: str) -> str:
    (root / "test_it.py").write_text(text)
    return stages._pytest("it", "test_it.py", seconds=60)()


def test_what_passes_runs_once(root: Path) -> None:
    assert run(root, "def test_good(): pass").startswith("1 passed")
    assert [path.name for path in (root / "logs").iterdir()] == ["it.log"]


def test_what_fails_once_is_named_and_passes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, ONCE).startswith("1 UNSTEADY; at the second try: 1 passed")
    told = capsys.readouterr().out
    assert "UNSTEADY, passed at a second try: FAILED test_it.py::test_unlucky - AssertionError: the first time" in told
    assert "the whole log is logs/it.log" in told
    assert sorted(path.name for path in (root / "logs").iterdir()) == ["it-again.log", "it.log"]


def test_what_is_broken_fails(root: Path) -> None:
    with pytest.raises(progress.StageError, match=r"\n1 failed.* in .*\nit-again: exit code 1"):
        run(root, BROKEN)


@pytest.mark.parametrize("text", ["import nothing_of_this_name", "def test("])
def test_what_cannot_be_collected_fails_at_once(root: Path, text: str) -> None:
    with pytest.raises(progress.StageError, match=r"\nit: exit code 2"):
        run(root, text)
    assert not (root / "logs" / "it-again.log").exists()


def test_a_run_that_was_broken_off_after_a_failure_gets_no_second_look(root: Path) -> None:
    with pytest.raises(progress.StageError, match=r"\nit: exit code 2"):
        run(root, ONCE + "def test_stopped(): raise KeyboardInterrupt\ndef test_not_run(): assert not 'seen'\n")


def test_no_second_look_at_many(root: Path) -> None:
    with pytest.raises(progress.StageError, match=r"\nit: exit code 1"):
        run(root, MANY.format(count=stages.LOOKED_AT_TWICE + 1))
    assert not (root / "logs" / "it-again.log").exists()
