"""A replica dies, hangs, is slow or loses answers, and people go on: what they may see of it is stated, and no more.

Nothing is tried again by the client. So a request that fails here failed for good; what the gateway may not repeat
(docs/gateway.md, "Tries") is the only thing that may fail.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fanfold.kit.deadline import SKEW_SECONDS
from tests.fault.conftest import OUTLIER_ERRORS
from tests.fault.journey import BROKEN_OFF, PEOPLE
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from tests.fault.conftest import Replica, Scene

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

SPREAD = 60
"""Good answers after which both replicas have certainly been used by everybody."""


async def until_ejected(scene: Scene) -> None:
    await eventually(lambda: scene.gateway.metric("ejections_total"), "an ejection")


def comment(scene: Scene, person: UUID, text: str) -> asyncio.Task[int]:
    return asyncio.create_task(scene.journey().ask("POST", person, "comments", json={"text": text}))


async def test_a_killed_replica_costs_only_what_may_not_be_repeated(
    scene: Scene, replicas: list[Replica], executed_once: Callable[..., None]
) -> None:
    journey = scene.journey()
    async with journey.under_way() as outcomes:
        await journey.more(SPREAD)
        replicas[1].kill()
        await journey.more(2 * SPREAD)
        await replicas[1].restart()
        await journey.more(SPREAD)
    assert set(outcomes.failed) <= {("POST", 502)}
    assert len(outcomes.unsure) <= PEOPLE, "those under way when it died, no more"
    executed_once(outcomes, await scene.comments())


async def test_a_paused_replica_costs_the_wait_until_it_is_ejected(
    scene: Scene, replicas: list[Replica], executed_once: Callable[..., None]
) -> None:
    await scene.lose_patience()
    journey = scene.journey()
    async with journey.under_way() as outcomes:
        await journey.more(SPREAD)
        replicas[0].pause()
        await until_ejected(scene)
        await journey.more(1)
        late = sum(outcomes.failed.values())
        await journey.more(2 * SPREAD)
        assert sum(outcomes.failed.values()) - late <= PEOPLE, "nobody is sent there any more"
        replicas[0].resume()
    assert {status for _, status in outcomes.failed} <= {504}
    assert OUTLIER_ERRORS <= sum(outcomes.failed.values()) <= PEOPLE + OUTLIER_ERRORS
    executed_once(outcomes, await scene.comments())


async def test_packets_dropped_before_a_replica_cost_the_wait_until_it_is_ejected(
    scene: Scene, executed_once: Callable[..., None]
) -> None:
    await scene.lose_patience()
    journey = scene.journey()
    async with journey.under_way() as outcomes:
        await journey.more(SPREAD)
        await scene.links[0].freeze()
        await until_ejected(scene)
        await journey.more(2 * SPREAD)
        scene.links[0].thaw()
    assert {status for _, status in outcomes.failed} <= {504}
    assert sum(outcomes.failed.values()) <= PEOPLE + OUTLIER_ERRORS
    executed_once(outcomes, await scene.comments())


async def test_a_request_that_arrives_after_its_deadline_does_nothing(scene: Scene, replicas: list[Replica]) -> None:
    await scene.lose_patience()
    person = scene.owned_by(0)
    assert await comment(scene, person, "in time") == 201
    await scene.links[0].freeze()
    assert await comment(scene, person, "too late") == 504
    before = await replicas[0].refused_late()
    await asyncio.sleep(2 * SKEW_SECONDS)
    scene.links[0].thaw()

    async def refused() -> bool:
        return await replicas[0].refused_late() > before

    await eventually(refused, "the replica got it after all")
    assert set(await scene.comments()) == {"in time"}


async def test_a_slow_link_makes_answers_late_and_nothing_else(
    scene: Scene, executed_once: Callable[..., None]
) -> None:
    scene.links[0].delay = 0.2
    journey = scene.journey()
    async with journey.under_way() as outcomes:
        await journey.more(2 * SPREAD)
    assert outcomes.failed == {}
    assert await scene.gateway.metric("retries_total") == 0
    assert await scene.gateway.metric("ejections_total") == 0
    executed_once(outcomes, await scene.comments())


async def test_a_lost_answer_is_fetched_again_where_that_does_nothing_twice(scene: Scene) -> None:
    journey, person = scene.journey(), scene.owned_by(0)
    statuses = {}
    for method, what in (("GET", "comments"), ("PUT", "like"), ("DELETE", "like"), ("POST", "comments")):
        scene.links[0].lose_every = 1
        body = {"text": "once"} if method == "POST" else None
        statuses[method] = await journey.ask(method, person, what, json=body)
        scene.links[0].lose_every = 0
        assert await journey.ask("GET", person, "comments") == 200, "the slot is used again"
    assert statuses == {"GET": 200, "PUT": 204, "DELETE": 204, "POST": 502}
    assert await scene.comments() == {"once": 1}


async def test_losing_every_eighth_answer_fails_no_read_and_does_nothing_twice(
    scene: Scene, executed_once: Callable[..., None]
) -> None:
    journey = scene.journey()
    async with journey.under_way() as outcomes:
        await journey.more(SPREAD)
        scene.links[0].lose_every = 8
        await journey.more(4 * SPREAD)

        async def lost() -> bool:
            return bool(outcomes.unsure)

        await eventually(lost, "a comment whose answer is lost")
        scene.links[0].lose_every = 0
    assert set(outcomes.failed) <= {("POST", 502), ("POST", BROKEN_OFF), ("GET", BROKEN_OFF)}
    assert outcomes.unsure
    comments = await scene.comments()
    executed_once(outcomes, comments)
    assert all(comments[text] == 1 for text in outcomes.unsure), "lost answers, not lost work"
