"""What is told of resources while they are there, and while this operator leads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from prometheus_client import REGISTRY

from fanfold_operator import kinds, metrics
from fanfold_operator.kinds import Key

PLATFORM, OTHER = Key("Platform", "prod", "demo"), Key("Platform", "prod", "other")
SERVICE = Key("PlatformService", "prod", "demo-feed")
AT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    metrics.forget_all()
    yield
    metrics.forget_all()


def phases(platform: Key) -> dict[str, float]:
    """Since when, by phase."""
    return {
        sample.labels["phase"]: sample.value
        for family in metrics.upgrade_since.collect()
        for sample in family.samples
        if sample.labels["platform"] == platform.name
    }


def desired() -> float | None:
    return REGISTRY.get_sample_value(
        "fanfold_operator_autoscaler_desired", {"namespace": "prod", "service": "demo-feed"}
    )


def test_a_platform_is_in_one_phase() -> None:
    metrics.tell_upgrade(PLATFORM, "Rolling", AT)
    metrics.tell_upgrade(OTHER, "Migrating", AT)
    metrics.tell_upgrade(PLATFORM, "RolledBack", AT)
    assert phases(PLATFORM) == {"RolledBack": AT.timestamp()}
    assert phases(OTHER) == {"Migrating": AT.timestamp()}


def test_of_a_resource_that_is_gone_nothing_is_told() -> None:
    metrics.tell_upgrade(PLATFORM, "Rolling", AT)
    metrics.tell_upgrade(OTHER, "Rolling", AT)
    metrics.tell_scaling(SERVICE, 3, frozen=False)
    metrics.forget(PLATFORM)
    assert (phases(PLATFORM), phases(OTHER), desired()) == ({}, {"Rolling": AT.timestamp()}, 3)
    metrics.forget(SERVICE)
    assert desired() is None


def test_who_does_not_lead_tells_of_no_resource() -> None:
    metrics.tell_upgrade(PLATFORM, "Rolling", AT)
    metrics.tell_scaling(SERVICE, 3, frozen=False)
    metrics.forget_all()
    assert (phases(PLATFORM), desired()) == ({}, None)


@pytest.mark.parametrize("kind", kinds.CUSTOM, ids=lambda kind: kind.kind)
def test_a_resource_of_every_kind_can_be_forgotten(kind: kinds.Kind) -> None:
    metrics.forget(Key(kind.kind, "prod", "gone"))
