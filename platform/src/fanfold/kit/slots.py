"""Which node of a Valkey Cluster owns a key: slots of keys, keys of commands, and the map that nodes tell.

Source: https://valkey.io/topics/cluster-spec/ .
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from redis.crc import key_slot

from fanfold.kit.logging import get_logger
from fanfold.kit.valkey import Address, Argument, Valkey, ValkeyError, ValkeyUnavailableError

log = get_logger(__name__)

SLOTS: Final = 16_384
_KEY_AT: Final = {"EVAL": 3, "EVALSHA": 3, "XGROUP": 2, "XINFO": 2}
"""Where the first key stands; 1 in other commands. Channels count as keys: nodes tell each other what is published."""

Node = tuple[str, int]
"""Host and port."""


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


def _text(word: Argument) -> str:
    return word.decode() if isinstance(word, bytes) else str(word)


def name_of(words: Sequence[Argument]) -> str:
    """Name of a command, in capitals."""
    return _text(words[0]).upper()


def key_of(words: Sequence[Argument]) -> Argument:
    """The first key of a command that has one: all its keys are of one slot."""
    name = name_of(words)
    if name in {"XREADGROUP", "XREAD"}:
        return words[next(at for at, word in enumerate(words) if word in {"STREAMS", b"STREAMS"}) + 1]
    if " " in name:  # redis-py writes "XINFO GROUPS" as one word
        return words[1]
    return words[_KEY_AT.get(name, 1)]


def slot_of(key: Argument) -> int:
    """CRC16 of the key, or of what stands in its first braces."""
    return int(key_slot(key if isinstance(key, bytes) else str(key).encode()))


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
