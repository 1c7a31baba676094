"""The source of snapshots lies, or is away, while people go on: nobody notices, and whoever runs it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import pytest

from fanfold.contracts.snapshot import Snapshot, encode
from fanfold.gateway.snapshots import FILE_NAME
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.fault.conftest import Scene

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

# What comes in place of a snapshot of epoch 5, and a word of why it is not taken.
LIES: Final[dict[str, tuple[Callable[[bytes], bytes], str]]] = {
    "cut short": (lambda good: good[: len(good) // 2], "not a snapshot"),
    "nothing": (lambda _: b"", "not a snapshot"),
    "no JSON": (lambda _: b"\x00\xff" * 100, "not a snapshot"),
    "another address in it": (lambda good: good.replace(b"127.0.0.1", b"127.0.0.2", 1), "wrong checksum"),
    "an older epoch": (lambda _: encode(Snapshot("default/test", 4, {})), "its epoch 4 is before 5"),
    "the same epoch with other contents": (lambda _: encode(Snapshot("default/test", 5, {})), "two contents"),
    "another platform's": (lambda _: encode(Snapshot("default/other", 9, {})), "of platform default/other"),
    "everybody gone": (lambda _: encode(Snapshot("default/test", 9, {})), "activity has 0 slots left of 2"),
}


async def in_force(scene: Scene, epoch: int) -> bool:
    found = await scene.gateway.snapshot()
    return (found["epoch"], found["held_back"]) == (epoch, None)


async def test_whatever_comes_for_a_snapshot_people_go_on_and_the_reason_is_told(scene: Scene) -> None:
    good = scene.snapshot(5)
    journey = scene.journey()
    async with journey.under_way() as outcomes:
        scene.locate(good)
        await eventually(lambda: in_force(scene, 5), "the first good one")
        for name, (lie, reason) in LIES.items():
            scene.locate(lie(good))

            async def told(reason: str = reason) -> bool:
                return reason in ((await scene.gateway.snapshot())["held_back"] or "")

            await eventually(told, f"{name}: {reason}")
            await journey.more(10)
            assert (await scene.gateway.snapshot())["epoch"] == 5
            assert await scene.gateway.metric("snapshot_held") == 1
        scene.locate(scene.snapshot(6))
        await eventually(lambda: in_force(scene, 6), "the next good one")
        await journey.more(10)
    assert outcomes.failed == {}


async def test_while_the_source_is_away_people_go_on_and_a_gateway_made_anew_serves_from_disk(scene: Scene) -> None:
    journey = scene.journey()
    async with journey.under_way() as outcomes:
        await journey.more(10)
        scene.file.unlink()

        async def old() -> bool:
            return bool((await scene.gateway.snapshot())["age_seconds"] > 2)

        await eventually(old, "a snapshot that grows old")
        await journey.more(10)
    assert outcomes.failed == {}

    await scene.restart_gateway()
    await eventually(scene.gateway.ready, "ready without the source")
    assert (await scene.gateway.snapshot())["source"] == "disk"
    journey = scene.journey()
    async with journey.under_way() as outcomes:
        await journey.more(10)
    assert outcomes.failed == {}


async def test_a_damaged_copy_on_disk_is_not_served_from_and_is_mended_by_the_source(scene: Scene) -> None:
    copy = scene.cache / FILE_NAME
    copy.write_bytes(copy.read_bytes().replace(b"127.0.0.1", b"127.0.0.2", 1))
    scene.file.unlink()
    await scene.restart_gateway()
    assert not await scene.gateway.ready()
    person = scene.people[0]
    assert await scene.journey().ask("GET", person, "comments") == 503
    scene.locate(scene.snapshot(1))
    await eventually(scene.gateway.ready, "ready when the source is back")
    assert await scene.journey().ask("GET", person, "comments") == 200

    async def mended() -> bool:
        return copy.read_bytes() == scene.snapshot(1)

    await eventually(mended, "a sound copy")
