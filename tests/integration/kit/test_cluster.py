"""The client of a Valkey Cluster, against three masters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.crc import key_slot

from fanfold.contracts import keys
from fanfold.kit.cluster import ClusterValkey, connect, connect_redis
from fanfold.kit.valkey import Script, Valkey, ValkeyError, ValkeyUnavailableError, packed
from tests.integration.valkey_cluster import ValkeyCluster

pytestmark = pytest.mark.integration

KEYS = [b"key:%d" % number for number in range(60)]


@pytest.fixture
async def valkey(valkey_cluster: ValkeyCluster) -> AsyncIterator[Valkey]:
    """A new client of an empty cluster."""
    for number in range(len(valkey_cluster.nodes)):
        valkey_cluster.client(number).flushall()
    client = connect(valkey_cluster.url)
    assert isinstance(client, ClusterValkey)
    yield client
    await client.close()


async def test_commands_go_where_their_keys_are_and_answers_come_in_order(
    valkey: Valkey, valkey_cluster: ValkeyCluster
) -> None:
    await valkey.all([("SET", key, key.upper()) for key in KEYS])
    assert await valkey.all([("GET", key) for key in KEYS]) == [key.upper() for key in KEYS]
    sizes = [valkey_cluster.client(number).dbsize() for number in range(3)]
    assert sum(sizes) == len(KEYS)
    assert min(sizes) > 5


async def test_many_keys_are_read_by_one_command(valkey: Valkey) -> None:
    ids = [key[4:].rjust(4, b"0") for key in KEYS]
    await valkey.all([("SET", b"post:" + one, one) for one in ids[1:]])
    found, pong, plain = await valkey.all(
        [packed((b"MGET",), b"post:", ids), ("PING",), ("MGET", b"post:" + ids[1], b"post:none")]
    )
    assert found == [None, *ids[1:]]
    assert (pong, plain) == (b"PONG", [ids[1], None])


async def test_scripts_run_where_their_keys_are(valkey: Valkey) -> None:
    script = Script("redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])")
    for key in KEYS[:20]:
        assert await valkey.script(script, [key], [b"1"]) == b"1"


async def test_keys_of_two_slots_in_one_command_are_an_error_of_that_command_alone(valkey: Valkey) -> None:
    wrong, right = await valkey.pipeline([("DEL", *KEYS[:9]), ("SET", KEYS[0], b"x")])
    assert isinstance(wrong, ValkeyError)
    assert "CROSSSLOT" in str(wrong)
    assert right == b"OK"


async def test_a_slot_that_moves_is_followed_while_it_moves_and_afterwards(
    valkey: Valkey, valkey_cluster: ValkeyCluster
) -> None:
    key = next(key for key in KEYS if key_slot(key) < 5_000)
    slot, old, new = key_slot(key), valkey_cluster.client(0), valkey_cluster.client(1)
    old_id, new_id = (client.execute_command("CLUSTER", "MYID").decode() for client in (old, new))
    await valkey.execute("SET", key, b"before")
    new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", old_id)
    old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", new_id)
    try:
        assert await valkey.execute("GET", key) == b"before"  # it is still there
        await valkey.execute("UNLINK", key)
        await valkey.execute("SET", key, b"asked")  # a key that is not there is made where the slot goes
        assert await valkey.execute("GET", key) == b"asked"
        assert new.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot) == 1
        for client in (new, old):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", new_id)
        assert await valkey.all([("GET", key), ("SET", key, b"moved"), ("GET", key)]) == [b"asked", b"OK", b"moved"]
    finally:
        new.execute_command("UNLINK", key)
        for client in (old, new):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", old_id)
        await valkey.all([("UNLINK", one) for one in KEYS])


async def test_streams_of_all_nodes_are_written_in_one_go_and_read_each_where_it_is(
    valkey: Valkey, valkey_cluster: ValkeyCluster
) -> None:
    streams = [keys.stream("posts", partition) for partition in range(8)]
    async with connect_redis(valkey_cluster.url) as redis:
        async with redis.pipeline(transaction=False) as pipe:
            for stream in streams:
                pipe.xadd(stream, {b"event": stream})
            ids = await pipe.execute()
        assert len(ids) == len(streams)
        for stream, written in zip(streams, ids, strict=True):
            await redis.xgroup_create(stream, "readers", id="0")
            ((_, ((read, fields),)),) = await redis.xreadgroup("readers", "me", {stream: ">"}, block=1_000)
            assert (read, fields) == (written, {b"event": stream})
            assert (await redis.xinfo_groups(stream))[0]["pending"] == 1
    assert len({key_slot(stream) // 5_462 for stream in streams}) == 3


async def test_a_stream_whose_slot_has_moved_is_written_where_it_is(
    valkey: Valkey, valkey_cluster: ValkeyCluster
) -> None:
    key = next(key for key in KEYS if key_slot(key) < 5_000)
    slot, nodes = key_slot(key), [valkey_cluster.client(number) for number in range(2)]
    ids = [node.execute_command("CLUSTER", "MYID").decode() for node in nodes]
    async with connect_redis(valkey_cluster.url) as redis:
        await redis.xadd(key, {b"a": b"1"})
        await redis.delete(key)
        for node in reversed(nodes):
            node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        try:
            async with redis.pipeline(transaction=False) as pipe:
                pipe.xadd(key, {b"a": b"2"})
                await pipe.execute()
            nodes[0].config_resetstat()
            await redis.xadd(key, {b"a": b"3"})
            assert "errorstat_MOVED" not in nodes[0].info("errorstats")  # it was learnt
            assert nodes[1].xlen(key) == 2
        finally:
            nodes[1].execute_command("UNLINK", key)
            for node in nodes:
                node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[0])


async def test_a_lost_node_fails_what_it_owns_and_is_found_again(valkey: Valkey, valkey_cluster: ValkeyCluster) -> None:
    mine = next(key for key in KEYS if key_slot(key) < 5_000)
    await valkey.execute("SET", mine, b"1")
    clients: list[Any] = [valkey_cluster.client(0)]
    clients[0].execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    async with asyncio.timeout(60):
        while True:
            try:
                assert await valkey.execute("GET", mine) == b"1"
            except ValkeyUnavailableError:
                continue
            break


async def test_a_cluster_that_is_not_there_is_told() -> None:
    client = connect("redis+cluster://:secret@127.0.0.1:1,127.0.0.1:2")
    with pytest.raises(ValkeyUnavailableError, match="no node of the cluster"):
        await client.execute("PING")
