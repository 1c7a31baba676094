"""What counts as a change, of objects and of conditions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fanfold_operator.conditions import Condition, merge, transitions
from fanfold_operator.differences import APPLIED_ANNOTATION, contains, quantity, stamped

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("observed", "desired"),
    [
        ({"a": 1, "default": True}, {"a": 1}),
        ({"cpu": "500m"}, {"cpu": "0.5"}),
        ({"memory": "1Gi"}, {"memory": 1073741824}),
        ({}, {"emptyDir": {}, "args": []}),
        ({"env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]}, {"env": [{"name": "A", "value": "1"}]}),
        ({"ports": [{"port": 1, "protocol": "TCP"}]}, {"ports": [{"port": 1}]}),
    ],
)
def test_defaults_and_others_fields_are_no_difference(observed: Any, desired: Any) -> None:
    assert contains(observed, desired)


@pytest.mark.parametrize(
    ("observed", "desired"),
    [
        ({"a": 2}, {"a": 1}),
        ({"a": "1Gi"}, {"a": "2Gi"}),
        ({}, {"a": False}),
        ({"env": [{"name": "A", "value": "2"}]}, {"env": [{"name": "A", "value": "1"}]}),
        ({"env": []}, {"env": [{"name": "A", "value": "1"}]}),
        ({"args": ["a", "b"]}, {"args": ["a"]}),
        ({"a": "text"}, {"a": {"b": 1}}),
        ({"a": "one"}, {"a": "two"}),
    ],
)
def test_a_changed_missing_or_surplus_value_is_one(observed: Any, desired: Any) -> None:
    assert not contains(observed, desired)


@pytest.mark.parametrize(
    ("text", "value"), [("100m", 0.1), ("1Ki", 1024), ("2k", 2000), (3, 3), ("1.5Gi", 1.5 * 2**30)]
)
def test_quantities(text: str | int, value: float) -> None:
    assert float(quantity(text)) == value


def test_no_quantity() -> None:
    with pytest.raises(ValueError, match="'ten' is no quantity"):
        quantity("ten")


def test_a_field_no_longer_set_changes_the_stamp() -> None:
    more = stamped({"metadata": {"annotations": {"mine": "x"}}, "spec": {"a": 1, "b": 2}})
    less = stamped({"metadata": {"annotations": {"mine": "x"}}, "spec": {"b": 2}})
    again = stamped({"spec": {"b": 2}, "metadata": {"annotations": {"mine": "x"}}})
    assert less["metadata"]["annotations"]["mine"] == "x"
    assert more["metadata"]["annotations"][APPLIED_ANNOTATION] != less["metadata"]["annotations"][APPLIED_ANNOTATION]
    assert less == again


def test_a_condition_keeps_its_time_until_its_status_turns() -> None:
    waiting = Condition("Ready", status=False, reason="Waiting", message="for A")
    first = merge([], [waiting], 1, NOW)
    second = merge(
        first, [Condition("Ready", status=False, reason="Other", message="for B")], 2, NOW + timedelta(hours=1)
    )
    assert second[0]["lastTransitionTime"] == first[0]["lastTransitionTime"] == "2026-01-02T03:04:05Z"
    assert (second[0]["reason"], second[0]["observedGeneration"]) == ("Other", 2)
    third = merge(second, [Condition("Ready", status=True, reason="Ready", message="")], 2, NOW + timedelta(hours=2))
    assert third[0]["lastTransitionTime"] == "2026-01-02T05:04:05Z"


def test_conditions_are_in_one_order_and_unknown_is_a_status() -> None:
    merged = merge([], [Condition("B", None, "X", ""), Condition("A", None, "X", "")], 1, NOW)
    assert [(one["type"], one["status"]) for one in merged] == [("A", "Unknown"), ("B", "Unknown")]


def test_a_transition_is_another_status_or_reason() -> None:
    before = merge([], [Condition("A", status=False, reason="X", message="1"), Condition("B", None, "X", "")], 1, NOW)
    after = merge(
        before, [Condition("A", status=False, reason="X", message="2"), Condition("B", None, "Y", "")], 1, NOW
    )
    assert [one["type"] for one in transitions(before, after)] == ["B"]
