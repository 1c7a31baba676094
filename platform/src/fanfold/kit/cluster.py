"""Valkey Cluster with the interfaces of one server: every command goes to the node that owns its key's slot.

Keys of one command are of one slot by their tags (`contracts.keys`), but for MGET, which is taken apart into one GET
for each key; so no command ever crosses slots. Nodes are clients of their own: what goes to one node in a turn of the
event loop is still one write.

A node that does not own a slot (any more) says who does (MOVED, ASK) without doing anything, so that asking there is
always safe. A node that is lost fails what was under way, as one server would; the map is then read anew.
Source: https://valkey.io/topics/cluster-spec/ .
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, Self

import hiredis
from redis.commands import AsyncCoreCommands
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError

from fanfold.kit.slots import Node, SlotMap, key_of, name_of, slot_of
from fanfold.kit.valkey import (
    Argument,
    Command,
    Valkey,
    ValkeyUnavailableError,
    is_cluster,
    redis_client,
)

PAUSES: Final = (0.0, 0.05, 0.1, 0.2, 0.4)
"""Seconds before a redirected command is tried again: a failover takes longer, and is told."""
_REDIRECTIONS: Final = ("MOVED ", "ASK ", "TRYAGAIN ", "CLUSTERDOWN ")


def connect(url: str) -> Valkey:
    """The client for ``redis://…`` (one server) or ``redis+cluster://[user[:password]@]host:port[,host:port…]``."""
    return ClusterValkey(url) if is_cluster(url) else Valkey(url)


def connect_redis(url: str) -> Any:
    """As `connect`: redis-py, or the same commands of a cluster (`ClusterRedis`)."""
    return ClusterRedis(url) if is_cluster(url) else redis_client(url)


class ClusterValkey(Valkey):
    """Auto-pipelining client of a cluster."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._map = SlotMap(url)
        self._nodes: dict[Node, Valkey] = {}

    async def close(self) -> None:
        """Close all connections."""
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            await node.close()

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """As of one server. Commands of one call may be carried out in any order where their slots differ."""
        requests: list[_Request] = []
        shapes: list[tuple[int, int, bool]] = []
        for command in commands:
            words = _words(command) if isinstance(command, bytes) else command
            parts = _parts(words)
            shapes.append((len(requests), len(parts), name_of(words) == "MGET"))
            requests += parts
        await self._carry_out(requests)
        answers = [one.answer for one in requests]
        return [_joined(answers[at : at + count]) if many else answers[at] for at, count, many in shapes]

    async def _carry_out(self, requests: Sequence[_Request]) -> None:
        """Fill in every answer; an error that no other node can mend is one."""
        waiting = requests
        for pause in PAUSES:
            if pause:
                await asyncio.sleep(pause)
            owners = await self._map.owners()
            by_node: defaultdict[Node, list[_Request]] = defaultdict(list)
            for one in waiting:
                by_node[owners[one.slot]].append(one)
            await asyncio.gather(*(self._ask(node, wanted) for node, wanted in by_node.items()))
            await asyncio.gather(*(self._follow(one) for one in waiting if one.is_told("ASK ")))
            waiting = [one for one in waiting if one.is_told(*_REDIRECTIONS)]
            if not waiting:
                return
            for one in waiting:
                if one.is_told("MOVED "):
                    self._map.moved(one.slot, *one.told())
                else:
                    self._map.forget()

    async def _ask(self, node: Node, requests: Sequence[_Request]) -> None:
        try:
            answers = await self._client(node).send([one.words for one in requests])
        except ValkeyUnavailableError:
            self._map.forget()  # perhaps a replica has its slots by now
            raise
        for one, answer in zip(requests, answers, strict=True):
            one.answer = answer

    async def _follow(self, request: _Request) -> None:
        """To the node that a slot is just moving to, which takes the command only after ASKING."""
        _, request.answer = await self._client(request.told()).send([("ASKING",), request.words])

    def _client(self, node: Node) -> Valkey:
        client = self._nodes.get(node)
        if client is None:
            client = self._nodes[node] = Valkey([self._map.address(node)])
        return client


class ClusterRedis(AsyncCoreCommands):
    """redis-py's commands, each of one key, over a client for each node.

    Its own `RedisCluster` closes the connections of all nodes when one of them fails: every consumer that waits for a
    stream then fails too. Here a node's trouble stays that node's.
    """

    _event_dispatcher: Any = None  # redis-py's commands want one declared; only its own clients use it

    def __init__(self, url: str) -> None:
        self._map = SlotMap(url)
        self._nodes: dict[Node, Any] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            await node.aclose()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """One command, on the node of its key; one without a key on every node, and the last one's answer.

        Raises:
            redis.exceptions.RedisError: As redis-py; `ConnectionError` when no node tells who owns the slot.
        """
        if len(args) == 1:
            answers = [await self._client(node).execute_command(*args, **options) for node in set(await self._owners())]
            return answers[-1]
        slot = slot_of(key_of(args))
        for pause in PAUSES:
            try:
                if pause:
                    await asyncio.sleep(pause)
                return await self._client((await self._owners())[slot]).execute_command(*args, **options)
            except MovedError as error:  # before AskError, of which redis-py makes it a kind
                self._map.moved(slot, error.host, error.port)
                problem: RedisError = error
            except AskError as error:
                async with self._client((error.host, error.port)).pipeline(transaction=False) as asking:
                    asking.execute_command("ASKING")
                    asking.execute_command(*args, **options)
                    return (await asking.execute())[1]
            except (TryAgainError, ClusterDownError) as error:
                self._map.forget()
                problem = error
            except RedisConnectionError:
                self._map.forget()
                raise  # it may have been carried out
        raise problem

    def pipeline(self, *, transaction: bool = False) -> ClusterPipeline:
        """Commands that are sent together, node by node; there are no transactions over slots."""
        assert not transaction
        return ClusterPipeline(self)

    async def carry_out(self, commands: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
        """Answers in order.

        Raises:
            redis.exceptions.RedisError: The first error; others of the commands may have been carried out.
        """
        owners = await self._owners()
        by_node: defaultdict[Node, list[int]] = defaultdict(list)
        for at, (args, _) in enumerate(commands):
            by_node[owners[slot_of(key_of(args))]].append(at)
        answers: list[Any] = [None] * len(commands)

        async def on(node: Node, places: Sequence[int]) -> None:
            async with self._client(node).pipeline(transaction=False) as pipe:
                for at in places:
                    args, options = commands[at]
                    pipe.execute_command(*args, **options)
                for at, answer in zip(places, await pipe.execute(raise_on_error=False), strict=True):
                    args, options = commands[at]
                    moved = isinstance(answer, MovedError | AskError | TryAgainError | ClusterDownError)
                    answers[at] = await self.execute_command(*args, **options) if moved else answer

        await asyncio.gather(*(on(node, places) for node, places in by_node.items()))
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    async def _owners(self) -> list[Node]:
        try:
            return await self._map.owners()
        except ValkeyUnavailableError as error:
            raise RedisConnectionError(str(error)) from error

    def _client(self, node: Node) -> Any:
        client = self._nodes.get(node)
        if client is None:
            client = self._nodes[node] = redis_client(self._map.address(node).url)
        return client


class ClusterPipeline(AsyncCoreCommands):
    """Collects commands, as redis-py's pipeline without a transaction."""

    _event_dispatcher: Any = None  # as in `ClusterRedis`

    def __init__(self, cluster: ClusterRedis) -> None:
        self._cluster = cluster
        self._commands: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._commands.clear()

    def execute_command(self, *args: Any, **options: Any) -> Self:
        """Keep a command for `execute`."""
        self._commands.append((args, options))
        return self

    async def execute(self) -> list[Any]:
        """As `ClusterRedis.carry_out`."""
        commands, self._commands = self._commands, []
        return await self._cluster.carry_out(commands)


class _Request:
    """One command for one slot, and what came of it."""

    __slots__ = ("answer", "slot", "words")

    def __init__(self, words: Sequence[Argument], slot: int) -> None:
        self.words = words
        self.slot = slot
        self.answer: Any = None

    def told(self) -> Node:
        """The node that a redirection names: ``MOVED 3999 127.0.0.1:6381``."""
        host, _, port = str(self.answer).split(" ")[2].rpartition(":")
        return host, int(port)

    def is_told(self, *beginnings: str) -> bool:
        """The answer is an error that begins so: the node did nothing."""
        return isinstance(self.answer, hiredis.ReplyError) and str(self.answer).startswith(beginnings)


def _words(command: bytes) -> list[bytes]:
    """Words of a packed command: RESP is read as it is written."""
    reader = hiredis.Reader()
    reader.feed(command)
    words: list[bytes] = reader.gets()
    return words


def _parts(words: Sequence[Argument]) -> list[_Request]:
    if name_of(words) == "MGET":
        return [_Request((b"GET", key), slot_of(key)) for key in words[1:]]
    if len(words) == 1:
        return [_Request(words, 0)]  # PING: any node does
    return [_Request(words, slot_of(key_of(words)))]


def _joined(answers: list[Any]) -> Any:
    """The answer of MGET."""
    return next((one for one in answers if isinstance(one, hiredis.ReplyError)), answers)
