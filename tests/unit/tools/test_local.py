from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tools import progress
from tools.local import clusters
from tools.local.clusters import Current, Kind, Native, choose
from tools.progress import StageError, Stages, command


@pytest.fixture(autouse=True)
def _logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOGS", tmp_path)
    monkeypatch.setattr(progress, "ROOT", tmp_path)


@pytest.mark.parametrize(("name", "kind"), [("native", Native), ("kind", Kind), ("current", Current)])
def test_the_cluster_asked_for_is_taken(name: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER", name)
    assert isinstance(choose(), kind)


def test_an_unknown_cluster_is_refused_with_the_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER", "mars")
    with pytest.raises(StageError, match="native, kind, current"):
        choose()


@pytest.mark.parametrize(("docker", "kind"), [(True, Kind), (False, Native)])
def test_without_a_choice_docker_decides_and_the_reason_is_said(
    docker: bool, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLUSTER", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(clusters, "_docker_answers", lambda: docker)
    chosen = choose()
    assert isinstance(chosen, kind)
    assert "Docker" in chosen.why


def test_the_current_context_is_told_where_images_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGE_REPOSITORY", raising=False)
    with pytest.raises(StageError, match="IMAGE_REPOSITORY"):
        Current(why="asked").load([])


def test_a_failed_command_shows_its_last_lines_and_its_log() -> None:
    with pytest.raises(StageError, match=r"(?s)the reason.*exit code 3.*broken.log"):
        command("broken", [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"], seconds=20)


def test_a_command_has_a_limit() -> None:
    with pytest.raises(StageError, match="no end within 0 s"):
        command("slow", [sys.executable, "-c", "import time; time.sleep(30)"], seconds=0.2)


def test_a_missing_command_says_what_to_do() -> None:
    with pytest.raises(StageError, match="make bootstrap"):
        command("absent", ["no-such-command-here"], seconds=5)


def test_stages_are_numbered_and_timed(capsys: pytest.CaptureFixture[str]) -> None:
    stages = Stages(2)
    stages.run("first", lambda: "noted")
    with pytest.raises(StageError):
        stages.run("second", lambda: (_ for _ in ()).throw(StageError("no")))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[1/2] first …"
    assert lines[1].endswith("(noted)")
    assert "FAILED" in lines[3]
