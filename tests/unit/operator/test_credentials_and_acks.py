"""Generated secrets, and gateways' acknowledgements."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import jwt
import pytest
from aiohttp import web

from fanfold_operator.kinds import Key
from fanfold_operator.resources import credentials
from fanfold_operator.ring.acks import AckTracker
from fanfold_operator.ring.ports import AdminPorts

RING = Key("HashRing", "prod", "demo")


def test_every_secret_is_made_and_none_twice_the_same() -> None:
    one, other = credentials.complete({}, "demo"), credentials.complete({}, "demo")
    assert set(one) == set(credentials.KEYS)
    assert not [key for key in one if one[key] == other[key]]
    assert len(bytes.fromhex(one["identity_key"])) == 32
    assert (
        one["database_url"] == f"postgresql+asyncpg://fanfold:{one['database_password']}@demo-postgresql:5432/fanfold"
    )
    assert one["valkey_url"] == f"redis://:{one['valkey_password']}@demo-valkey:6379/0"


def test_what_is_there_is_never_changed() -> None:
    first = credentials.complete({}, "demo")
    assert credentials.complete(first, "demo") == first
    partial = {key: value for key, value in first.items() if key != "token_jwks"}
    assert credentials.complete(partial, "demo") == first, "the public half follows from the private one"


def test_the_secret_survives_its_encoding() -> None:
    values = credentials.complete({}, "demo")
    assert credentials.decode(credentials.encode(values)) == values


def test_a_token_signed_with_the_private_key_is_verified_with_the_set() -> None:
    made = credentials.complete({}, "demo")
    key = json.loads(made["token_jwks"])["keys"][0]
    token = jwt.encode({"sub": "x"}, made["token_private_key"], algorithm="EdDSA", headers={"kid": key["kid"]})
    assert jwt.decode(token, jwt.PyJWK(key), algorithms=["EdDSA"]) == {"sub": "x"}
    assert "d" not in key, "no private part"


def test_another_sort_of_key_is_refused() -> None:
    with pytest.raises(ValueError, match="Unable to load PEM"):
        credentials.complete({"token_private_key": "garbage"}, "demo")


@pytest.fixture
async def gateway() -> AsyncIterator[tuple[str, dict[str, int]]]:
    """A gateway's admin port, and the state it shows."""
    state = {"epoch": 3}

    async def show(_: web.Request) -> web.Response:
        return web.json_response({"epoch": state["epoch"], "checksum": "x", "age_seconds": 1.0})

    app = web.Application()
    app.router.add_get("/snapshot", show)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"127.0.0.1:{runner.addresses[0][1]}", state
    await runner.cleanup()


async def test_gateways_are_asked_until_all_use_the_epoch(gateway: tuple[str, dict[str, int]]) -> None:
    address, state = gateway
    ports, changed = AdminPorts(), asyncio.Event()
    tracker = AckTracker(ports.epoch, lambda _: changed.set())
    first = tracker.follow(RING, 4, [address], fresh=True)
    assert (first.acked, first.gateways, first.seconds, first.asked) == (0, 1, None, False)
    async with asyncio.timeout(30):
        await changed.wait()
    asked = tracker.follow(RING, 4, [address], fresh=False)
    assert (asked.acked, asked.asked) == (0, True)
    assert tracker.newest(RING) == 3
    changed.clear()
    state["epoch"] = 4
    async with asyncio.timeout(30):
        await changed.wait()
    done = tracker.follow(RING, 4, [address], fresh=False)
    assert done.acked == 1
    assert done.seconds is not None
    assert 0 < done.seconds < 60
    joined = tracker.follow(RING, 4, [address, "127.0.0.1:1"], fresh=False)
    assert (joined.acked, joined.gateways) == (1, 2), "who acked before need not again; who does not answer has not"
    tracker.close()
    await ports.close()
