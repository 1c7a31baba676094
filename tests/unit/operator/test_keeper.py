"""Keys that are looked at again and again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from fanfold_operator.keeper import Keeper
from fanfold_operator.kinds import Key
from tests.waiting import eventually

ONE, OTHER = Key("Platform", "prod", "one"), Key("Platform", "prod", "other")


@dataclass
class Seen:
    looks: int = 0
    ended: bool = False


class Looks:
    """What a keeper calls; a look of a key in `fails` raises, one of a key in `hangs` does not end."""

    def __init__(self) -> None:
        self.fails: set[Key] = set()
        self.hangs: set[Key] = set()

    async def __call__(self, key: Key, seen: Seen) -> float:
        seen.looks += 1
        if key in self.fails:
            raise RuntimeError(key)
        try:
            await asyncio.sleep(3600 if key in self.hangs else 0)
        except asyncio.CancelledError:
            seen.ended = True
            raise
        return 0.001


def keeper(looks: Looks) -> Keeper[Seen]:
    return Keeper(looks, Seen, name="look", retry_seconds=0.001)


async def test_a_key_is_looked_at_again_with_its_own_memory_though_others_fail_or_hang() -> None:
    looks = Looks()
    looks.hangs.add(OTHER)
    kept = keeper(looks)
    seen, other = kept.keep(ONE), kept.keep(OTHER)
    assert kept.keep(ONE) is seen
    await eventually(lambda: seen.looks > 2)
    looks.fails.add(ONE)
    failing = seen.looks
    await eventually(lambda: seen.looks > failing + 2)
    assert other.looks == 1
    await kept.close()


async def test_a_forgotten_key_is_looked_at_no_more_and_begins_anew() -> None:
    kept = keeper(Looks())
    seen = kept.keep(ONE)
    await eventually(lambda: seen.looks > 0)
    kept.forget(ONE)
    kept.forget(OTHER)
    again = kept.keep(ONE)
    assert (again is not seen, again.looks) == (True, 0)
    looked = seen.looks
    await eventually(lambda: again.looks > 2)
    assert seen.looks == looked
    await kept.close()


async def test_after_closing_no_look_goes_on() -> None:
    looks = Looks()
    looks.hangs |= {ONE, OTHER}
    kept = keeper(looks)
    both = [kept.keep(ONE), kept.keep(OTHER)]
    await eventually(lambda: all(seen.looks for seen in both))
    await kept.close()
    assert all(seen.ended for seen in both)
