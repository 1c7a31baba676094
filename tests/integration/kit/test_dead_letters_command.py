"""`fanfold deadletters`, as an operator of the platform types it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from fanfold.cli import app
from fanfold.contracts import keys
from fanfold.kit.valkey import redis_client

if TYPE_CHECKING:
    from pathlib import Path

    from fanfold.dev.stores import BackingStores

pytestmark = pytest.mark.integration

TOPIC = "posts"


@pytest.fixture
def command(stores: BackingStores, secrets_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("FANFOLD_SECRETS_DIR", str(secrets_dir))
    with_redis(stores, lambda redis: redis.flushdb())
    return lambda *words: CliRunner().invoke(app, ["deadletters", *words], env={"COLUMNS": "200"})


def with_redis(stores: BackingStores, work: Any) -> Any:
    async def run() -> Any:
        async with redis_client(stores.valkey_url) as redis:
            return await work(redis)

    return asyncio.run(run())


def bury(stores: BackingStores, *payloads: bytes) -> None:
    async def add(redis: Any) -> None:
        for payload in payloads:
            letter = {"stream": keys.stream(TOPIC, 3), "group": "feed-worker", "reason": "no such author"}
            await redis.xadd(keys.dead_letters(TOPIC), letter | {"event": payload, "request_id": "r1"})

    with_redis(stores, add)


def test_letters_are_listed_with_their_reasons_replayed_oldest_first_and_dropped(
    stores: BackingStores, command: Any
) -> None:
    bury(stores, b"one", b"two", b"three")
    listed = command("list", TOPIC)
    assert listed.exit_code == 0
    assert listed.output.count("no such author") == 3
    assert "feed-worker" in listed.output
    replayed = command("replay", TOPIC, "--limit", "2")
    assert (replayed.exit_code, replayed.output.strip()) == (0, "replayed 2")
    back = with_redis(stores, lambda redis: redis.xrange(keys.stream(TOPIC, 3)))
    assert [fields[b"event"] for _, fields in back] == [b"one", b"two"]
    assert command("list", TOPIC).output.count("no such author") == 1
    assert command("drop", TOPIC).output.strip() == "dropped 1"
    assert "no such author" not in command("list", TOPIC).output


def test_a_topic_that_is_not_there_is_refused_with_those_there_are(command: Any) -> None:
    for verb in ("list", "replay", "drop"):
        refused = command(verb, "pots")
        assert refused.exit_code == 2
        assert "posts" in refused.output
