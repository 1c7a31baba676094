"""What a run came to: the platform's own figures, the verdict, and one document of all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fanfold_loadtest.facts import asked
from fanfold_loadtest.recording import Recorder
from fanfold_loadtest.results import document
from fanfold_loadtest.verdict import judge

if TYPE_CHECKING:
    from fanfold_loadtest.results import Document
    from fanfold_loadtest.runner import Run


def conclude(run: Run, prometheus: str, platform: str) -> tuple[Document, Recorder, str]:
    """The document, what was recorded, and why Prometheus told nothing if it should have.

    Args:
        run: What was done.
        prometheus: URL of one that scrapes the platform; empty: there is none.
        platform: ``[NAMESPACE/]NAME`` of the Platform; empty: all that Prometheus scrapes.
    """
    scenario = run.scenario
    facts, trouble = asked(prometheus, platform, run.started.timestamp(), scenario)
    recorder = Recorder.of(scenario.seconds, run.shares)
    judgement = judge(
        scenario,
        scenario.slos,
        recorder,
        run.shares,
        interrupted=run.interrupted,
        mishaps=run.mishaps,
        used=facts.used,
    )
    return document(run, recorder, judgement, facts.charts), recorder, trouble
