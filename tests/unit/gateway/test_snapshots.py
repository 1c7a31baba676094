from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest
import xxhash

from fanfold.contracts.snapshot import Slot, Snapshot, decode, encode
from fanfold.gateway.metrics import GatewayStats
from fanfold.gateway.snapshots import SnapshotKeeper, Verdict, judge
from fanfold.gateway.sources import FILE_POLL_SECONDS, FileSource


def snapshot(epoch: int = 1, platform: str = "default/test", **counts: int) -> Snapshot:
    services = {
        name: [Slot(f"{name}-{n}", f"10.0.0.{n}:8000") for n in range(count)]
        for name, count in (counts or {"feed": 2}).items()
    }
    return decode(encode(Snapshot(platform, epoch, services)))


class Rig:
    def __init__(self, folder: Path | None, confirm: float = 10) -> None:
        self.applied: list[int] = []
        self.stats = GatewayStats()
        self.keeper = SnapshotKeeper(self.apply, self.stats, folder, confirm)

    async def apply(self, new: Snapshot) -> None:
        self.applied.append(new.epoch)

    async def offer(self, new: Snapshot) -> Verdict:
        return await self.keeper.offer(encode(new), "test")


def stopped(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The keeper's clock, which stands until it is set."""
    now = [1_000.0]
    monkeypatch.setattr("fanfold.gateway.snapshots.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.mark.parametrize(
    ("current", "offered", "verdict"),
    [
        (None, snapshot(7), Verdict.APPLY),
        (snapshot(7), snapshot(8), Verdict.APPLY),
        (snapshot(7), snapshot(7), Verdict.SAME),
        (snapshot(7), snapshot(6), Verdict.STALE),
        (snapshot(7), snapshot(7, feed=3), Verdict.CONFLICT),
        (snapshot(7), snapshot(8, "default/other"), Verdict.CONFLICT),
        (snapshot(7, feed=1), snapshot(8, feed=0), Verdict.ABSURD),
        (snapshot(7, feed=1), snapshot(8, post=1), Verdict.ABSURD),
        (snapshot(7, feed=4), snapshot(8, feed=1), Verdict.ABSURD),
        (snapshot(7, feed=4), snapshot(8, feed=2), Verdict.APPLY),
        (snapshot(7, feed=3), snapshot(8, feed=1), Verdict.APPLY),
        (snapshot(7, feed=0), snapshot(8, feed=0, post=1), Verdict.APPLY),
    ],
)
def test_a_snapshot_is_judged_against_the_one_in_force(
    current: Snapshot | None, offered: Snapshot, verdict: Verdict
) -> None:
    assert judge(current, offered).verdict is verdict


async def test_epochs_never_go_backwards() -> None:
    rig = Rig(None)
    for epoch in (3, 5, 4, 5, 6):
        await rig.offer(snapshot(epoch))
    assert rig.applied == [3, 5, 6]
    assert rig.stats.snapshots == {"applied": 3, "stale": 1, "same": 1}


async def test_a_corrupt_snapshot_is_reported_and_changes_nothing() -> None:
    rig = Rig(None)
    await rig.offer(snapshot(1))
    damaged = encode(snapshot(2)).replace(b"10.0.0.1", b"10.0.0.9")
    assert await rig.keeper.offer(damaged, "test") is Verdict.CORRUPT
    assert await rig.keeper.offer(b"{", "test") is Verdict.CORRUPT
    assert "not a snapshot" in rig.keeper.held
    assert rig.applied == [1]


async def test_an_absurd_snapshot_is_believed_once_it_has_lasted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = stopped(monkeypatch)
    rig = Rig(None, confirm=10)
    await rig.offer(snapshot(1))
    assert await rig.offer(snapshot(2, feed=0)) is Verdict.ABSURD
    assert rig.keeper.held == "feed has 0 slots left of 2"
    now[0] += 9.9
    assert await rig.offer(snapshot(2, feed=0)) is Verdict.ABSURD
    now[0] += 0.1
    assert await rig.offer(snapshot(2, feed=0)) is Verdict.APPLY
    assert (rig.applied, rig.keeper.held) == ([1, 2], "")


async def test_a_sound_snapshot_in_between_starts_the_wait_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = stopped(monkeypatch)
    rig = Rig(None, confirm=10)
    await rig.offer(snapshot(1))
    await rig.offer(snapshot(2, feed=0))
    now[0] += 15
    await rig.offer(snapshot(3))
    assert await rig.offer(snapshot(4, feed=0)) is Verdict.ABSURD


async def test_a_restart_begins_with_the_last_known_good(tmp_path: Path) -> None:
    before = Rig(tmp_path / "made" / "when-needed")
    await before.offer(snapshot(9))
    after = Rig(tmp_path / "made" / "when-needed")
    await after.keeper.load()
    assert (after.applied, after.keeper.source, after.keeper.confirmed) == ([9], "disk", False)
    assert await after.offer(snapshot(8)) is Verdict.STALE
    assert await after.offer(snapshot(9)) is Verdict.SAME
    assert (after.keeper.source, after.keeper.confirmed) == ("test", True)


async def test_the_copy_keeps_what_a_newer_writer_said_so_that_it_is_the_same_after_a_restart(tmp_path: Path) -> None:
    body = encode(snapshot(4)).rpartition(b',"checksum"')[0] + b',"written_by":"2.0"}'
    data = body[:-1] + b',"checksum":"' + xxhash.xxh3_64_hexdigest(body).encode() + b'"}'
    assert await Rig(tmp_path).keeper.offer(data, "test") is Verdict.APPLY
    after = Rig(tmp_path)
    await after.keeper.load()
    assert await after.keeper.offer(data, "test") is Verdict.SAME


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty", "a folder"])
async def test_a_damaged_copy_is_not_used(tmp_path: Path, damage: str) -> None:
    await Rig(tmp_path).offer(snapshot(9))
    copy = tmp_path / "snapshot.json"
    sound = copy.read_bytes()
    if damage == "a folder":
        copy.unlink()
        copy.mkdir()
    else:
        copy.write_bytes({"truncated": sound[:-5], "changed": sound.replace(b"9", b"8"), "empty": b""}[damage])
    rig = Rig(tmp_path)
    await rig.keeper.load()
    assert rig.applied == []
    assert rig.keeper.current is None


async def test_a_crash_while_saving_leaves_the_old_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)
    await rig.offer(snapshot(1))
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("power cut")))
    await rig.offer(snapshot(2))
    assert rig.applied == [1, 2]
    assert decode((tmp_path / "snapshot.json").read_bytes()).epoch == 1


async def test_a_changed_file_is_delivered_at_the_next_look_and_an_unchanged_one_at_each_poll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "snapshot.json"
    delivered: list[bytes | str] = []
    looks = 0

    async def deliver(data: bytes | str, source: str) -> None:
        assert source == "file"
        delivered.append(data)

    async def look(_: float) -> None:
        nonlocal looks
        looks += 1
        await pause(0)

    async def after(count: int) -> list[bytes | str]:
        """What was delivered by so many further looks."""
        delivered.clear()
        until = looks + count
        while looks < until:
            await pause(0)
        return list(delivered)

    pause = asyncio.sleep
    monkeypatch.setattr("fanfold.gateway.sources.asyncio.sleep", look)
    task = asyncio.create_task(FileSource(path, poll_seconds=5 * FILE_POLL_SECONDS).run(deliver))
    try:
        assert await after(3) == []
        partial = path.with_suffix(".partial")
        for content in (b"one", b"two"):
            partial.write_bytes(content)
            partial.replace(path)
            assert await after(2) == [content]
        path.unlink()
        assert await after(2) == []
        path.write_bytes(b"two")
        assert await after(20) == [b"two"] * 4, "at once, and at each fifth look"
    finally:
        task.cancel()
