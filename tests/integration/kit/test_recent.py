from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fanfold.contracts.keys import COMPLETE
from fanfold.dev.stores import BackingStores
from fanfold.kit.recent import Entry, RecentSet
from fanfold.kit.valkey import Valkey

pytestmark = pytest.mark.integration
KEY = b"recent"


def _entries(*scores: int) -> list[Entry]:
    return [Entry(score, b"member-%03d" % score) for score in sorted(scores, reverse=True)]


def _members(*scores: int) -> list[bytes]:
    return [entry.member for entry in _entries(*scores)]


class Rows:
    """The truth; a load can be made to wait."""

    def __init__(self, *scores: int, limit: int = 3) -> None:
        self.scores = set(scores)
        self.limit = limit
        self.loads = 0
        self.loaded = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def load(self) -> list[Entry]:
        self.loads += 1
        read = _entries(*self.scores)[: self.limit]
        self.loaded.set()
        await self.go_on.wait()
        return read


@pytest.fixture
async def valkey(stores: BackingStores) -> AsyncIterator[Valkey]:
    client = Valkey(stores.valkey_url)
    await client.execute("FLUSHALL")
    yield client
    await client.close()


@pytest.fixture
def recent(valkey: Valkey) -> RecentSet:
    return RecentSet(valkey, limit=3, seconds=60)


async def test_a_set_never_filled_is_missing(recent: RecentSet) -> None:
    assert await recent.read(KEY) is None


async def test_a_change_does_not_make_a_missing_set(recent: RecentSet) -> None:
    await recent.add(KEY, Entry(1, b"one"))
    await recent.remove(KEY, b"one")
    assert await recent.read(KEY) is None


async def test_an_empty_set_is_complete(recent: RecentSet) -> None:
    await recent.refill(KEY, Rows().load)
    assert await recent.read(KEY) == ([], True)


async def test_a_filled_set_is_read_newest_first_and_expires(recent: RecentSet, valkey: Valkey) -> None:
    assert await recent.refill(KEY, Rows(2, 1).load) == (_members(2, 1), True)
    assert await recent.read(KEY) == (_members(2, 1), True)
    assert 0 < await valkey.execute("TTL", KEY) <= 60


async def test_a_full_set_says_that_there_may_be_more(recent: RecentSet) -> None:
    await recent.refill(KEY, Rows(1, 2, 3, 4).load)
    assert await recent.read(KEY) == (_members(4, 3, 2), False)


async def test_an_entry_added_over_the_limit_raises_the_floor(recent: RecentSet, valkey: Valkey) -> None:
    await recent.refill(KEY, Rows(2, 3).load)
    for entry in _entries(4, 5):
        await recent.add(KEY, entry)
    assert await recent.read(KEY) == (_members(5, 4, 3), False)
    assert float(await valkey.execute("ZSCORE", KEY, COMPLETE)) == 2


async def test_an_entry_below_the_floor_is_not_taken(recent: RecentSet) -> None:
    await recent.refill(KEY, Rows(5, 6, 7).load)
    await recent.add(KEY, _entries(4)[0])
    assert await recent.read(KEY) == (_members(7, 6, 5), False)


async def test_an_entry_removed_from_a_set_that_holds_everything_is_gone(recent: RecentSet) -> None:
    await recent.refill(KEY, Rows(1, 2).load)
    await recent.remove(KEY, _members(1)[0])
    assert await recent.read(KEY) == (_members(2), True)


async def test_a_set_with_a_floor_is_missing_after_a_removal(recent: RecentSet) -> None:
    await recent.refill(KEY, Rows(1, 2, 3, 4).load)
    await recent.remove(KEY, _members(4)[0])
    assert await recent.read(KEY) is None


async def test_a_set_under_refill_is_missing(recent: RecentSet) -> None:
    rows = Rows(1)
    rows.go_on.clear()
    refill = asyncio.create_task(recent.refill(KEY, rows.load))
    await rows.loaded.wait()
    assert await recent.read(KEY) is None
    rows.go_on.set()
    await refill
    assert await recent.read(KEY) is not None


@pytest.mark.parametrize("change", ["add", "remove"])
async def test_a_change_during_a_refill_is_in_what_the_refill_writes(recent: RecentSet, change: str) -> None:
    rows = Rows(1, 2)
    rows.go_on.clear()
    refill = asyncio.create_task(recent.refill(KEY, rows.load))
    await rows.loaded.wait()
    if change == "add":
        rows.scores.add(3)
        await recent.add(KEY, _entries(3)[0])
    else:
        rows.scores.remove(2)
        await recent.remove(KEY, _members(2)[0])
    rows.go_on.set()
    expected = (_members(*rows.scores), len(rows.scores) < 3)
    assert await refill == expected
    assert await recent.read(KEY) == expected
    assert rows.loads == 2


async def test_of_two_refills_in_two_processes_the_later_one_writes(recent: RecentSet, valkey: Valkey) -> None:
    other = RecentSet(valkey, limit=3, seconds=60)
    rows = Rows(1)
    rows.go_on.clear()
    first = asyncio.create_task(recent.refill(KEY, rows.load))
    await rows.loaded.wait()
    await other.refill(KEY, Rows(1, 2).load)
    rows.scores.add(2)
    rows.go_on.set()
    await first
    assert await recent.read(KEY) == (_members(2, 1), True)


async def test_refills_at_once_load_once(recent: RecentSet) -> None:
    rows = Rows(1)
    await asyncio.gather(*(recent.refill(KEY, rows.load) for _ in range(10)))
    assert rows.loads == 1


async def test_a_set_of_a_thousand_is_filled_in_pieces(valkey: Valkey) -> None:
    recent, rows = RecentSet(valkey, limit=1_000, seconds=60), Rows(*range(1, 1_200), limit=1_000)
    await recent.refill(KEY, rows.load)
    assert await recent.read(KEY) == (_members(*range(200, 1_200)), False)
