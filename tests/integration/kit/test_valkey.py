from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from fanfold.dev.process import free_ports
from fanfold.kit.valkey import Script, Valkey, ValkeyError, ValkeyUnavailableError

if TYPE_CHECKING:
    from fanfold.dev.stores import BackingStores

pytestmark = pytest.mark.integration


@pytest.fixture
async def valkey(stores: BackingStores) -> AsyncIterator[Valkey]:
    client = Valkey(stores.valkey_url)
    yield client
    await client.execute("FLUSHDB")
    await client.close()


async def test_answers_come_to_those_who_asked_though_written_at_once(valkey: Valkey) -> None:
    await valkey.pipeline([("SET", f"key:{n}", n) for n in range(500)])
    answers = await asyncio.gather(*(valkey.execute("GET", f"key:{n}") for n in range(500)))
    assert answers == [str(n).encode() for n in range(500)]


async def test_an_error_in_a_pipeline_stands_in_its_place_and_hurts_no_other(valkey: Valkey) -> None:
    first, broken, last = await valkey.pipeline([("SET", "a", 1), ("INCR", "a", "x"), ("GET", "a")])
    assert (first, last) == (b"OK", b"1")
    assert isinstance(broken, ValkeyError)


async def test_an_error_answer_is_raised_with_the_servers_words(valkey: Valkey) -> None:
    with pytest.raises(ValkeyError, match="unknown command"):
        await valkey.execute("NONSENSE")


async def test_a_caller_that_gives_up_does_not_shift_the_answers_of_others(valkey: Valkey) -> None:
    await valkey.execute("SET", "b", "here")
    waiting = asyncio.ensure_future(valkey.execute("BLPOP", "empty", 0.3))
    await asyncio.sleep(0.05)
    waiting.cancel()
    assert await valkey.execute("GET", "b") == b"here"


async def test_a_script_is_sent_again_when_the_server_forgot_it(valkey: Valkey) -> None:
    script = Script("return {KEYS[1], ARGV[1]}")
    assert await valkey.script(script, ["k"], ["v"]) == [b"k", b"v"]
    await valkey.execute("SCRIPT", "FLUSH")
    assert await valkey.script(script, ["k"], ["w"]) == [b"k", b"w"]


async def test_a_script_error_is_not_taken_for_a_forgotten_script(valkey: Valkey) -> None:
    with pytest.raises(ValkeyError, match="own words"):
        await valkey.script(Script("return redis.error_reply('own words')"), [])


async def test_after_a_lost_connection_the_next_command_connects_again(valkey: Valkey, stores: BackingStores) -> None:
    identity = await valkey.execute("CLIENT", "ID")
    other = Valkey(stores.valkey_url)
    await other.execute("CLIENT", "KILL", "ID", identity)
    async with asyncio.timeout(30):
        while await other.execute("CLIENT", "LIST", "ID", identity):
            await asyncio.sleep(0.01)
    await other.close()
    await asyncio.sleep(0.05)  # the end of the connection is seen
    assert await valkey.execute("PING") == b"PONG"


async def test_what_was_under_way_on_a_lost_connection_fails_at_once(valkey: Valkey, stores: BackingStores) -> None:
    identity = await valkey.execute("CLIENT", "ID")
    waiting = asyncio.ensure_future(valkey.execute("BLPOP", "empty", 30))
    await asyncio.sleep(0.05)
    other = Valkey(stores.valkey_url)
    await other.execute("CLIENT", "KILL", "ID", identity)
    await other.close()
    with pytest.raises(ValkeyUnavailableError, match="lost"):
        await waiting


async def test_no_answer_in_time_is_an_error(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanfold.kit.valkey.COMMAND_SECONDS", 0.1)
    with pytest.raises(ValkeyUnavailableError, match="did not answer"):
        await valkey.execute("BLPOP", "empty", 1)


async def test_no_server_is_told_with_its_address() -> None:
    (port,) = free_ports(1)
    with pytest.raises(ValkeyUnavailableError, match=str(port)):
        await Valkey(f"redis://127.0.0.1:{port}/0").execute("PING")


async def test_a_wrong_password_is_refused(stores: BackingStores) -> None:
    url = stores.valkey_url.replace("redis://:", "redis://:wrong")
    with pytest.raises(ValkeyError, match=r"WRONGPASS|invalid"):
        await Valkey(url).execute("PING")
