"""What workers are scaled by: the messages that wait for their group, and the age of the oldest. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fanfold_operator.autoscale.decision import Metric

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fanfold.contracts.resources import PlatformServiceSpec
    from fanfold_operator.scrape import Scrape

MESSAGES: Final = "fanfold_backlog_messages"
OLDEST: Final = "fanfold_backlog_oldest_seconds"
NAMES: Final = (MESSAGES, OLDEST)


def metrics(spec: PlatformServiceSpec, scrapes: Iterable[Scrape]) -> tuple[Metric, ...]:
    """Both metrics of a worker, from what its pods told.

    Each pod measures the whole group, so one that answers is enough; of several the largest counts. The age asks for no
    more replicas than messages wait: one message that fails again and again is not helped by a crowd.
    """
    told = tuple(scrapes)
    messages, oldest = _largest(told, MESSAGES, spec.component), _largest(told, OLDEST, spec.component)
    target = spec.autoscaling
    at_most = None if messages is None else int(messages)
    return (
        Metric("messages waiting", messages, target.target_lag),
        Metric("seconds the oldest waits", oldest, target.target_age_seconds, shared=False, at_most=at_most),
    )


def _largest(scrapes: tuple[Scrape, ...], name: str, group: str) -> float | None:
    values = [one.total(name, group=group) for one in scrapes]
    return max((value for value in values if value is not None), default=None)
