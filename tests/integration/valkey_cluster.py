"""A Valkey Cluster on loopback: masters that share the slots, without replicas."""

from __future__ import annotations

import secrets
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Self

import redis

from fanfold.dev.process import free_ports
from fanfold.dev.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MASTERS: Final = 3
SLOTS: Final = 16_384
READY_SECONDS: Final = 60.0


class Node(Valkey):
    """One server of a cluster."""

    def prepare(self) -> Sequence[str]:
        """As a single server, with a port for the other nodes."""
        command = super().prepare()
        (bus,) = free_ports(1)
        file = self.folder / "valkey.conf"
        lines = ["cluster-enabled yes", f"cluster-port {bus}", "cluster-node-timeout 2000", ""]
        file.write_text(file.read_text() + "\n".join(lines))
        self.bus = bus
        return command


class ValkeyCluster:
    """Context manager.

    Attributes:
        nodes: The masters; node n owns the n-th third of the slots.
        url: ``redis+cluster://…`` of the first two: the third is to be found.
    """

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self._clients: dict[int, Any] = {}
        password = secrets.token_hex(16)
        self.nodes = [Node(folder / f"node-{number}", password, durable=False) for number in range(MASTERS)]
        hosts = ",".join(_host(node) for node in self.nodes[:2])
        self.url = f"redis+cluster://:{password}@{hosts}"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for node in self.nodes:
                node.start()
                stack.callback(node.stop)
            for node in self.nodes:
                node.wait()
            self._join()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients.values():
            client.close()
        self._stack.close()

    def client(self, number: int) -> Any:
        """redis-py of one node; closed at the end."""
        if number not in self._clients:
            self._clients[number] = redis.Redis.from_url(self.nodes[number].url, socket_timeout=30)
        return self._clients[number]

    def _join(self) -> None:
        size = -(-SLOTS // MASTERS)
        for number in range(MASTERS):
            with self.client(number) as client:
                first = number * size
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, min(first + size, SLOTS) - 1)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        with self.client(0) as client:
            for node in self.nodes[1:]:
                host, port = _host(node).split(":")
                client.execute_command("CLUSTER", "MEET", host, port, node.bus)
        deadline = time.monotonic() + READY_SECONDS
        for number in range(MASTERS):
            with self.client(number) as client:
                while not self._whole(client):
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"the cluster did not form: {client.execute_command('CLUSTER', 'INFO')}")
                    time.sleep(0.05)

    def _whole(self, client: Any) -> bool:
        facts = client.execute_command("CLUSTER", "INFO")
        known = facts if isinstance(facts, dict) else dict(line.split(":") for line in facts.decode().split())
        return known["cluster_state"] == "ok" and int(known["cluster_known_nodes"]) == MASTERS


def _host(node: Valkey) -> str:
    return node.url.rpartition("@")[2].partition("/")[0]
