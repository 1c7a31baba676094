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
from dataclasses import replace
from typing import Any, Final, Self

import hiredis
from redis.commands import AsyncCoreCommands
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError

from fanfold.kit.logging import get_logger
from fanfold.kit.valkey import (
    Address,
    Argument,
    Command,
    Valkey,
    ValkeyError,
    ValkeyUnavailableError,
    is_cluster,
    redis_client,
)

log = get_logger(__name__)

SLOTS: Final = 16_384
PAUSES: Final = (0.0, 0.05, 0.1, 0.2, 0.4)
"""Seconds before a redirected command is tried again: a failover takes longer, and is told."""
_KEY_AT: Final = {"EVAL": 3, "EVALSHA": 3, "XGROUP": 2, "XINFO": 2}
"""Where the first key stands; 1 in other commands. Channels count as keys: nodes tell each other what is published."""
_REDIRECTIONS: Final = ("MOVED ", "ASK ", "TRYAGAIN ", "CLUSTERDOWN ")

Node = tuple[str, int]


def connect(url: str) -> Valkey:
    """The client for ``redis://…`` (one server) or ``redis+cluster://[user[:password]@]host:port[,host:port…]``."""
    return ClusterValkey(url) if is_cluster(url) else Valkey(url)


def connect_redis(url: str) -> Any:
    """As `connect`: redis-py, or the same commands of a cluster (`ClusterRedis`)."""
    return ClusterRedis(url) if is_cluster(url) else redis_client(url)


class SlotMap:
    """Which node owns which slot: learnt on first use, and anew when it proves old."""

    def __init__(self, url: str) -> None:
        self._seeds = Address.parse(url)
        self._owners: list[Node] = []
        self._nodes: set[Node] = set()
        self._learning = asyncio.Lock()

    def address(self, node: Node) -> Address:
        """How to log in to a node: as to the first that was named."""
        return replace(self._seeds[0], host=node[0], port=node[1])

    def moved(self, slot: int, host: str, port: int) -> None:
        """A node said who owns a slot: news that other nodes may not have yet."""
        if self._owners and host:
            self._owners[slot] = (host, port)
        else:
            self.forget()

    def forget(self) -> None:
        """The map is old: whoever needs it next reads it anew."""
        self._owners = []

    async def owners(self) -> list[Node]:
        """The primary of each slot.

        Raises:
            ValkeyUnavailableError: No node tells, or slots have no owner.
        """
        return self._owners or await self._learn()

    async def _learn(self) -> list[Node]:
        async with self._learning:
            if self._owners:
                return self._owners
            problem = "no node was named"
            for node in dict.fromkeys([*self._nodes, *((seed.host, seed.port) for seed in self._seeds)]):
                client = Valkey([self.address(node)])
                try:
                    self._owners = _owners(await client.execute("CLUSTER", "SLOTS"), node)
                    self._nodes = set(self._owners)
                except ValkeyError as error:
                    problem = str(error)
                else:
                    log.debug("valkey_cluster_learnt", nodes=len(self._nodes))
                    return self._owners
                finally:
                    await client.close()
            raise ValkeyUnavailableError(f"no node of the cluster tells who owns which slot: {problem}")


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
            shapes.append((len(requests), len(parts), _name(words) == "MGET"))
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
        slot = _slot(_key_of(args))
        for pause in PAUSES:
            try:
                if pause:
                    await asyncio.sleep(pause)
                return await self._client((await self._owners())[slot]).execute_command(*args, **options)
            except AskError as error:
                async with self._client((error.host, error.port)).pipeline(transaction=False) as asking:
                    asking.execute_command("ASKING")
                    asking.execute_command(*args, **options)
                    return (await asking.execute())[1]
            except MovedError as error:
                self._map.moved(slot, error.host, error.port)
                problem: RedisError = error
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
            by_node[owners[_slot(_key_of(args))]].append(at)
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


def _text(word: Argument) -> str:
    return word.decode() if isinstance(word, bytes) else str(word)


def _name(words: Sequence[Argument]) -> str:
    return _text(words[0]).upper()


def _key_of(words: Sequence[Argument]) -> Argument:
    name = _name(words)
    if name in {"XREADGROUP", "XREAD"}:
        return words[next(at for at, word in enumerate(words) if word in {"STREAMS", b"STREAMS"}) + 1]
    if " " in name:  # redis-py writes "XINFO GROUPS" as one word
        return words[1]
    return words[_KEY_AT.get(name, 1)]


def _slot(key: Argument) -> int:
    return int(key_slot(key if isinstance(key, bytes) else str(key).encode()))


def _parts(words: Sequence[Argument]) -> list[_Request]:
    if _name(words) == "MGET":
        return [_Request((b"GET", key), _slot(key)) for key in words[1:]]
    if len(words) == 1:
        return [_Request(words, 0)]  # PING: any node does
    return [_Request(words, _slot(_key_of(words)))]


def _joined(answers: list[Any]) -> Any:
    """The answer of MGET."""
    return next((one for one in answers if isinstance(one, hiredis.ReplyError)), answers)


def _owners(ranges: Sequence[Any], told_by: Node) -> list[Node]:
    """The primary of each slot, from CLUSTER SLOTS: (first, last, (host, port, …), replicas…)."""
    owners: list[Node | None] = [None] * SLOTS
    for first, last, (host, port, *_), *_ in ranges:
        # A node that does not know its own address leaves it out: it is the one that was asked.
        node = (host.decode() if host else told_by[0], int(port))
        owners[first : last + 1] = [node] * (last + 1 - first)
    whole = [node for node in owners if node is not None]
    if len(whole) != SLOTS:
        raise ValkeyUnavailableError(f"{SLOTS - len(whole):,} slots of the cluster have no owner")
    return whole
