"""The election in simulated time: two candidates, one Lease, and a network that delays, loses and refuses."""

from __future__ import annotations

import asyncio
import random
import selectors
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanfold_operator.api import ApiError
from fanfold_operator.fencing import Fence, NotLeadingError
from fanfold_operator.kinds import Manifest
from fanfold_operator.leadership import JITTER, Elector, Timing, election

TIMING = Timing()


class Instantly(selectors.SelectSelector):
    """Instead of waiting, it lets simulated time pass."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everything waits for ever"
        self.now += max(0.0, timeout)
        return super().select(0)


class Simulation(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = Instantly()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def simulate(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop = Simulation()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def now() -> float:
    return asyncio.get_running_loop().time()


class Server:
    """One Lease, as the API server keeps it."""

    def __init__(self) -> None:
        self.lease: Manifest | None = None
        self.version = 0

    def put(self, body: Manifest, *, fresh: bool) -> Manifest:
        known = self.lease
        expected = None if fresh else body["metadata"]["resourceVersion"]
        if (known and known["metadata"]["resourceVersion"]) != expected:
            raise ApiError(409, "Conflict", "of another version")
        self.version += 1
        self.lease = {"metadata": {"resourceVersion": str(self.version)}, "spec": body["spec"]}
        return self.lease


class Network:
    """A candidate's way to the server. `trouble` says how long a call takes there and back, and how it fails."""

    def __init__(self, server: Server, trouble: Callable[[], tuple[float, float, str]] = lambda: (0, 0, "")) -> None:
        self._server = server
        self._trouble = trouble

    async def get(self) -> Manifest | None:
        found: Manifest | None = await self._pass(lambda: self._server.lease)
        return found

    async def create(self, body: Manifest) -> Manifest:
        made: Manifest = await self._pass(lambda: self._server.put(body, fresh=True))
        return made

    async def replace(self, body: Manifest) -> Manifest:
        made: Manifest = await self._pass(lambda: self._server.put(body, fresh=False))
        return made

    async def _pass(self, call: Callable[[], Any]) -> Any:
        there, back, failure = self._trouble()
        await asyncio.sleep(there)
        if failure == "refused":
            raise ApiError(500, "InternalError", "not today")
        answer = call()
        await asyncio.sleep(back)
        if failure == "lost":
            raise ApiError(0, "Unreachable", "the answer was lost")
        return answer


class Candidate:
    """Leads by writing every 50 ms, each write taking `write_seconds`, and tells the others' fences to nobody."""

    def __init__(self, name: str, network: Network, write_seconds: float = 0.0) -> None:
        self.name = name
        self.fence = Fence(now)
        self.elector = Elector(network, name, self.fence, TIMING, now)
        self.writes: list[tuple[float, float]] = []
        self.terms: list[float] = []
        self._write_seconds = write_seconds

    async def lead(self) -> None:
        self.terms.append(now())
        while True:
            try:
                with self.fence.writing() as seconds:
                    begun = now()
                    await asyncio.sleep(min(seconds, self._write_seconds))
                    self.writes.append((begun, now()))
            except NotLeadingError:
                pass
            await asyncio.sleep(0.05)

    def start(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.elector.run(self.lead))


async def stopped(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def overlap(one: Candidate, other: Candidate) -> list[tuple[float, float]]:
    return [
        (begun, first)
        for begun, ended in one.writes
        for first, last in other.writes
        if (begun < last and first < ended) or begun == first
    ]


FAILURES = ("", "", "", "", "refused", "lost")


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), slow=st.sampled_from([0.05, 1.0, 4.0, 20.0]), loss=st.booleans())
def test_there_are_never_two_writers_whatever_the_network_does(seed: int, slow: float, loss: bool) -> None:
    chance = random.Random(seed)

    def trouble() -> tuple[float, float, str]:
        bad = chance.random() < 0.3
        delays = [chance.uniform(0, slow if bad else 0.02) for _ in range(2)]
        return delays[0], delays[1], chance.choice(FAILURES) if loss else ""

    async def main() -> None:
        server = Server()
        both = [Candidate(name, Network(server, trouble), chance.choice([0.0, 0.3, 9.0])) for name in "ab"]
        tasks = [one.start() for one in both]
        for _ in range(chance.randrange(5)):
            await asyncio.sleep(chance.uniform(1, 30))
            number = chance.randrange(2)
            await stopped(tasks[number])
            tasks[number] = both[number].start()
        await asyncio.sleep(60)
        await stopped(*tasks)
        assert overlap(*both) == []
        assert both[0].writes or both[1].writes or slow > TIMING.call

    simulate(main)


def test_a_successor_of_one_that_died_begins_within_the_time_promised() -> None:
    async def main() -> None:
        for seed in range(40):
            server, chance = Server(), random.Random(seed)
            first, second = Candidate(f"first-{seed}", Network(server)), Candidate("second", Network(server))
            task = first.start()
            await asyncio.sleep(chance.uniform(0, 3))
            other = second.start()
            await asyncio.sleep(20 + chance.uniform(0, 3))
            assert len(first.terms) == 1
            assert second.terms == []
            first.elector._give_up = lambda: asyncio.sleep(0, True)  # type: ignore[method-assign] # it died
            await stopped(task)
            died = first.writes[-1][1]
            await asyncio.sleep(20)
            assert TIMING.renew < second.terms[0] - died <= TIMING.lease + TIMING.look * JITTER + 0.01
            await stopped(other)

    simulate(main)


@pytest.mark.parametrize("write_seconds", [0.6, 4.0])
def test_one_that_is_stopped_hands_over_as_soon_as_its_last_write_ended(write_seconds: float) -> None:
    async def main() -> None:
        server = Server()
        first, second = Candidate("first", Network(server), write_seconds), Candidate("second", Network(server))
        task = first.start()
        await asyncio.sleep(5)
        other = second.start()
        await asyncio.sleep(5)
        stop = now()
        await stopped(task)
        last = first.writes[-1][1]
        await asyncio.sleep(5)
        assert last <= second.terms[0] <= stop + write_seconds + TIMING.look * JITTER + 0.01
        assert server.lease is not None
        assert server.lease["spec"]["leaseTransitions"] == 1
        await stopped(other)

    simulate(main)


def test_a_lease_with_a_write_under_way_is_not_given_up_but_runs_out() -> None:
    async def main() -> None:
        server = Server()
        first, second = Candidate("first", Network(server), 9.0), Candidate("second", Network(server))
        task = first.start()
        await asyncio.sleep(1)
        other = second.start()
        await asyncio.sleep(1)
        await stopped(task)
        await asyncio.sleep(30)
        assert second.terms[0] >= TIMING.lease
        await stopped(other)

    simulate(main)


@pytest.mark.parametrize("year", ["1970", "2199"])
def test_the_times_in_the_lease_do_not_count(year: str) -> None:
    """A peer whose clock is wrong is neither robbed of its lease nor does it keep it after its death."""

    async def main() -> None:
        server = Server()
        stamp = f"{year}-01-01T00:00:00.000000Z"
        spec = {"holderIdentity": "peer", "leaseDurationSeconds": 10, "acquireTime": stamp, "renewTime": stamp}
        server.put({"spec": spec}, fresh=True)
        mine = Candidate("mine", Network(server))
        task = mine.start()
        for number in range(20):
            await asyncio.sleep(2)
            assert server.lease is not None
            renewed = {**spec, "renewTime": stamp.replace("T00", f"T{number:02}")}
            server.put({**server.lease, "spec": renewed}, fresh=False)
        assert mine.terms == []
        died = now()
        await asyncio.sleep(15)
        assert TIMING.lease <= mine.terms[0] - died + TIMING.look * JITTER <= TIMING.lease + 2 * TIMING.look * JITTER
        await stopped(task)

    simulate(main)


def test_a_renewal_counts_from_when_it_was_sent() -> None:
    """The answer may be read by a process that was stopped in between."""

    async def main() -> None:
        fence = Fence(now)
        network = Network(Server(), lambda: (0, TIMING.renew - 1, ""))
        elector = Elector(network, "mine", fence, Timing(call=60), now)
        task = asyncio.create_task(elector.run(lambda: asyncio.sleep(1000)))
        await asyncio.sleep(2 * (TIMING.renew - 1) + 0.5)
        assert fence.check() == pytest.approx(TIMING.lease - (TIMING.renew - 1) - 0.5)
        await asyncio.sleep(0.5)
        with pytest.raises(NotLeadingError):
            fence.check()
        await stopped(task)

    simulate(main)


def test_writes_end_by_the_clock_even_if_nothing_ends_the_term() -> None:
    """A process that was stopped goes on with its reconcile before it learns that its lease was lost."""

    async def main() -> None:
        first = Candidate("first", Network(Server()), 5.0)
        first.elector._renew_until_lost = lambda: asyncio.sleep(1000)  # type: ignore[method-assign]
        task = first.start()
        await asyncio.sleep(50)
        begun, ended = first.writes[-1]
        assert begun < TIMING.renew
        assert ended == TIMING.lease, "cut off before another one may begin"
        await stopped(task)

    simulate(main)


def test_a_holder_that_was_told_a_longer_duration_is_believed() -> None:
    async def main() -> None:
        server = Server()
        server.put({"spec": {"holderIdentity": "peer", "leaseDurationSeconds": 30}}, fresh=True)
        mine = Candidate("mine", Network(server))
        task = mine.start()
        await asyncio.sleep(29)
        assert mine.terms == []
        await asyncio.sleep(3)
        assert mine.terms
        await stopped(task)

    simulate(main)


def test_a_deleted_lease_is_no_free_lease() -> None:
    async def main() -> None:
        server = Server()
        first, second = Candidate("first", Network(server)), Candidate("second", Network(server))
        task = first.start()
        await asyncio.sleep(1)
        other = second.start()
        await asyncio.sleep(2)
        server.lease = None
        await asyncio.sleep(30)
        assert overlap(first, second) == []
        assert second.terms == [], "its holder made it anew"
        assert first.writes[-1][1] > 30
        await stopped(task, other)

    simulate(main)


def test_a_label_on_the_lease_does_not_cost_the_leader_its_term() -> None:
    async def main() -> None:
        server = Server()
        first = Candidate("first", Network(server))
        task = first.start()
        await asyncio.sleep(1)
        assert server.lease is not None
        server.put({**server.lease}, fresh=False)
        await asyncio.sleep(20)
        assert len(first.terms) == 1
        await stopped(task)

    simulate(main)


def test_what_goes_wrong_in_a_term_ends_the_process_and_gives_the_lease_up() -> None:
    async def main() -> None:
        server = Server()
        first = Candidate("first", Network(server))

        async def fail() -> None:
            raise RuntimeError("a bug")

        with pytest.raises(RuntimeError, match="a bug"):
            await first.elector.run(fail)
        assert server.lease is not None
        assert server.lease["spec"]["holderIdentity"] == ""

    simulate(main)


def test_without_a_right_to_the_lease_it_says_so_at_once() -> None:
    class Forbidden(Network):
        async def get(self) -> Manifest | None:
            raise ApiError(403, "Forbidden", "leases is forbidden")

    async def main() -> None:
        with pytest.raises(ApiError, match="forbidden"):
            await Candidate("first", Forbidden(Server())).start()

    simulate(main)


@pytest.mark.parametrize("wrong", [{"lease": 5.0}, {"retry": 7.0}, {"retry": 0.0}])
def test_timing_that_leaves_no_margin_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="lease must be longer than renew"):
        Timing(**wrong)


def test_no_process_takes_its_predecessors_lease_for_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "pod-0")
    one, other = election("prod", "x"), election(None, "x")
    assert one.identity != other.identity
    assert one.identity.startswith("pod-0_")
    assert (one.lease.namespace, other.lease.namespace) == ("prod", "default")
