"""What is told is told once, counted when it repeats, and summed up when it does not stop."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fanfold_operator.api import ApiError
from fanfold_operator.events import DIFFERENT, Grouping, Recorder
from fanfold_operator.kinds import Key, Manifest

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


class Events:
    """The part of the API server that keeps Events: all but the series of one is immutable."""

    def __init__(self) -> None:
        self.kept: dict[Key, Manifest] = {}
        self.fails = False

    async def create(self, key: Key, body: Manifest, _: str) -> Manifest:
        if self.fails:
            raise ApiError(0, "Unreachable", "down")
        if key in self.kept:
            raise ApiError(409, "AlreadyExists", "it is there")
        self.kept[key] = body
        return body

    async def get(self, key: Key) -> Manifest:
        return self.kept[key]

    async def merge(self, key: Key, body: Manifest, _: str) -> Manifest:
        assert set(body) == {"series"}
        self.kept[key] = self.kept[key] | body
        return self.kept[key]


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def recorder(events: Events) -> Recorder:
    return Recorder(events, lambda: NOW)  # type: ignore[arg-type]


def condition(kind: str, status: str, reason: str, message: str = "so") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


async def test_a_transition_is_an_event_with_all_that_describe_shows(
    recorder: Recorder, events: Events, resource: Callable[..., Manifest]
) -> None:
    await recorder.record(resource("Platform"), [condition("Ready", "True", "Ready", "clients can be served")])
    (event,) = events.kept.values()
    assert event["apiVersion"] == "events.k8s.io/v1"
    assert event["regarding"]["kind"] == "Platform"
    assert event["regarding"]["uid"] == "uid-demo"
    assert (event["type"], event["reason"], event["action"]) == ("Normal", "Ready", "Reconcile")
    assert event["note"] == "Ready is True: clients can be served"
    assert event["eventTime"] == "2026-01-02T03:04:05.678901Z"
    assert event["reportingController"] == "fanfold.dev/operator"
    assert event["reportingInstance"]
    assert "series" not in event


async def test_repeats_count_up_in_one_series(
    recorder: Recorder, events: Events, resource: Callable[..., Manifest]
) -> None:
    for _ in range(4):
        await recorder.record(resource("Platform"), [condition("Degraded", "True", "Failed", "disk full")])
    (event,) = events.kept.values()
    assert event["type"] == "Warning"
    assert event["series"] == {"count": 4, "lastObservedTime": "2026-01-02T03:04:05.678901Z"}


async def test_many_different_ones_become_one(
    recorder: Recorder, events: Events, resource: Callable[..., Manifest]
) -> None:
    for number in range(DIFFERENT + 5):
        await recorder.tell(resource("PlatformService"), "Scaled", f"scaled to {number}")
    notes = [event["note"] for event in events.kept.values()]
    assert len(notes) == DIFFERENT + 1
    assert sum(note.startswith("(combined from similar events)") for note in notes) == 1
    combined = next(event for event in events.kept.values() if event["note"].startswith("(combined"))
    assert combined["series"]["count"] == 5


def test_after_the_window_notes_are_told_again() -> None:
    grouping = Grouping()
    for number in range(DIFFERENT):
        assert grouping.told_as("u", "R", str(number), NOW) == str(number)
    assert grouping.told_as("u", "R", "one more", NOW).startswith("(combined")
    assert grouping.told_as("u", "Other", "one more", NOW) == "one more"
    assert grouping.told_as("v", "R", "one more", NOW) == "one more"
    assert grouping.told_as("u", "R", "3", NOW) == "3", "a known one stays its own"
    assert grouping.told_as("u", "R", "one more", NOW + timedelta(minutes=10)) == "one more"


@pytest.mark.parametrize(
    "quiet",
    [
        condition("Ready", "False", "Waiting"),
        condition("Degraded", "False", "AsExpected"),
        condition("RingSynced", "True", "AllAcked"),
        condition("AutoscalingActive", "True", "Active"),
    ],
    ids=lambda one: f"{one['type']} {one['reason']}",
)
async def test_what_is_ordinary_is_not_told(
    recorder: Recorder, events: Events, resource: Callable[..., Manifest], quiet: dict[str, Any]
) -> None:
    await recorder.record(resource("Platform"), [quiet])
    assert events.kept == {}


async def test_what_did_not_turn_is_not_told_though_its_message_changed(
    recorder: Recorder, events: Events, resource: Callable[..., Manifest]
) -> None:
    before = resource("Platform", status={"conditions": [condition("Ready", "False", "SecretMissing", "one")]})
    await recorder.record(before, [condition("Ready", "False", "SecretMissing", "two")])
    assert events.kept == {}


async def test_missing_metrics_are_a_warning_and_an_api_server_that_is_down_is_no_error(
    recorder: Recorder, events: Events, resource: Callable[..., Manifest]
) -> None:
    lost = [condition("AutoscalingActive", "False", "MetricsMissing")]
    await recorder.record(resource("PlatformService"), lost)
    assert [event["type"] for event in events.kept.values()] == ["Warning"]
    events.fails = True
    await recorder.record(resource("PlatformService"), lost)
