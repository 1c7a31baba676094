"""`make loadtest` finds what runs here, and says what to do if nothing does."""

from __future__ import annotations

import os

import pytest

from tools import loadtest
from tools.progress import StageError


class Cluster:
    """A cluster with, or without, a platform."""

    why, name = "", ""

    def environment(self) -> dict[str, str]:
        return {"KUBECONFIG": "/k", "SCENARIO": "browse"}


def test_a_url_is_taken_as_it_is() -> None:
    arguments, _ = loadtest.command({"URL": "http://x", "SCENARIO": "soak", "PROFILE": "large", "ARGS": "--seed 2"})
    wanted = ["fanfold-loadtest", "run", "soak", "--url", "http://x", "--profile", "large", "--seed", "2"]
    assert arguments == wanted


def test_the_development_platform_comes_before_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loadtest, "answers", lambda url: url == loadtest.DEV_URL)
    arguments, _ = loadtest.command({})
    assert arguments == ["fanfold-loadtest", "run", "celebrity", "--url", loadtest.DEV_URL, "--profile", "small"]


def test_in_a_cluster_scenarios_may_act_on_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loadtest, "answers", lambda _: False)
    monkeypatch.setattr(loadtest, "choose", Cluster)
    monkeypatch.setattr(loadtest, "gateway_url", lambda _: "http://127.0.0.1:30080")
    arguments, environment = loadtest.command({})
    assert arguments[2:5] == ["browse", "--url", "http://127.0.0.1:30080"]
    assert arguments[-2:] == ["--platform", "fanfold/demo"]
    assert environment["KUBECONFIG"] == "/k"


def test_where_nothing_runs_it_says_how_to_start_something(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(_: object) -> str:
        raise StageError("no url\nat all")

    monkeypatch.setattr(loadtest, "answers", lambda _: False)
    monkeypatch.setattr(loadtest, "choose", Cluster)
    monkeypatch.setattr(loadtest, "gateway_url", nothing)
    with pytest.raises(SystemExit) as caught:
        loadtest.command(dict(os.environ))
    assert caught.value.code == 3
    assert "no platform runs here (no url): start one with `make dev`" in capsys.readouterr().err
