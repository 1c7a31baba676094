"""Slots: stable places on the ring."""

from __future__ import annotations

import random
import time

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from fanfold_operator.ring.slots import EMPTY, Endpoint, Holder, Slots, assign


def ready(*names: str) -> list[Endpoint]:
    return [Endpoint(name, ready=True) for name in names]


def leaving(*names: str) -> list[Endpoint]:
    return [Endpoint(name, ready=False, leaving=True) for name in names]


def addresses(slots: Slots) -> dict[int, str]:
    return {number: holder.address for number, holder in slots.held.items() if holder.state == "active"}


THREE = assign(EMPTY, ready("a", "b", "c"), 3)


def test_numbers_begin_at_zero() -> None:
    assert addresses(THREE) == {0: "a", 1: "b", 2: "c"}


def test_a_pod_inherits_the_number_of_the_one_that_is_leaving() -> None:
    slots = assign(THREE, [*ready("a", "c", "new"), *leaving("b")], 3)
    assert addresses(slots) == {0: "a", 1: "new", 2: "c"}


def test_a_pod_inherits_the_number_of_one_that_is_gone() -> None:
    gap = assign(THREE, ready("a", "c"), 3)
    assert addresses(gap) == {0: "a", 2: "c"}
    assert gap.vacant == {1}
    assert addresses(assign(gap, ready("a", "c", "new"), 3)) == {0: "a", 1: "new", 2: "c"}


def test_a_rollouts_surplus_pod_waits_for_the_number_of_the_one_it_replaces() -> None:
    surge = assign(THREE, ready("a", "b", "c", "new"), 3)
    assert surge == THREE
    assert addresses(assign(surge, [*ready("a", "c", "new"), *leaving("b")], 3)) == {0: "a", 1: "new", 2: "c"}


def test_a_leaving_pod_without_a_successor_drains() -> None:
    slots = assign(THREE, [*ready("a", "b"), *leaving("c")], 2)
    assert slots.held[2] == Holder("c", "draining")
    after = assign(slots, ready("a", "b"), 2)
    assert addresses(after) == {0: "a", 1: "b"}
    assert not after.vacant, "a number is not kept for a replica nobody wants"


def test_an_unready_pod_keeps_its_number_and_gets_it_back() -> None:
    unready = [Endpoint("b", ready=False), *ready("a", "c")]
    drained = assign(THREE, unready, 3)
    assert drained.held[1] == Holder("b", "draining")
    assert assign(drained, ready("a", "b", "c"), 3) == THREE


def test_a_new_replica_leaves_an_unready_ones_number_alone() -> None:
    slots = assign(THREE, [Endpoint("b", ready=False), *ready("a", "c", "d")], 4)
    assert addresses(slots) == {0: "a", 2: "c", 3: "d"}
    assert slots.held[1].address == "b"


def test_a_surplus_pod_takes_the_place_of_an_unready_one() -> None:
    slots = assign(THREE, [Endpoint("b", ready=False), *ready("a", "c", "d")], 3)
    assert addresses(slots) == {0: "a", 1: "d", 2: "c"}


endpoint_lists = st.lists(
    st.builds(Endpoint, st.sampled_from([f"10.0.0.{i}:8000" for i in range(12)]), st.booleans(), st.booleans()),
    unique_by=lambda one: one.address,
)
histories = st.lists(st.tuples(endpoint_lists, st.integers(0, 8)), min_size=1, max_size=8)


@given(histories, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_nothing_moves_without_a_change(
    history: list[tuple[list[Endpoint], int]], shuffler: random.Random
) -> None:
    slots = EMPTY
    for endpoints, wanted in history:
        shuffled = list(endpoints)
        shuffler.shuffle(shuffled)
        after = assign(slots, endpoints, wanted)
        assert assign(slots, shuffled, wanted) == after
        assert assign(after, endpoints, wanted) == after
        slots = after


@given(histories)
def test_no_address_twice_no_dead_address_and_holders_keep_their_numbers(
    history: list[tuple[list[Endpoint], int]],
) -> None:
    slots = EMPTY
    for endpoints, wanted in history:
        after = assign(slots, endpoints, wanted)
        held = [holder.address for holder in after.held.values()]
        assert len(set(held)) == len(held)
        usable = {one.address for one in endpoints if one.usable}
        assert set(held) <= {one.address for one in endpoints}
        assert set(addresses(after).values()) <= usable
        assert not after.vacant & set(after.held)
        for number, address in addresses(slots).items():
            if address in usable:
                assert after.held[number] == Holder(address, "active")
        assert len(addresses(after)) >= min(wanted, len(usable)), "who is ready and wanted has a number"
        assert len(addresses(after)) <= max(wanted, len(addresses(slots)), len(slots.held) + len(slots.vacant))
        slots = after


class Deployment(RuleBasedStateMachine):
    """A Deployment as Kubernetes runs it: scaling, crashes and rollouts with surge. The ring must move the least."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted = 3
        self.serial = 0
        self.pods: dict[str, Endpoint] = {}
        self.slots = EMPTY
        for _ in range(self.wanted):
            self._start()
        self._observe()

    def _start(self) -> None:
        self.serial += 1
        name = f"pod-{self.serial:04}"
        self.pods[name] = Endpoint(name, ready=True)

    def _observe(self) -> frozenset[int]:
        before = self.slots.active
        self.slots = assign(self.slots, list(self.pods.values()), self.wanted)
        return before

    def _running(self) -> list[str]:
        return sorted(name for name, pod in self.pods.items() if not pod.leaving)

    @rule(choice=st.randoms(use_true_random=False))
    def roll_out(self, choice: random.Random) -> None:
        for old in choice.sample(self._running(), len(self._running())):
            before = self.slots.active
            self._start()
            self._observe()
            self.pods[old] = Endpoint(old, ready=False, leaving=True)
            self._observe()
            assert self.slots.active == before, "a rollout moves no key"
            del self.pods[old]
            self._observe()
            assert self.slots.active == before

    @rule(choice=st.randoms(use_true_random=False))
    def crash_and_replace(self, choice: random.Random) -> None:
        before = self.slots.active
        del self.pods[choice.choice(self._running())]
        self._observe()
        assert len(before - self.slots.active) == 1
        assert self.slots.active < before, "only the keys of the lost replica move"
        self._start()
        self._observe()
        assert self.slots.active == before, "its successor takes them back"

    @rule()
    @precondition(lambda self: self.wanted < 12)
    def scale_up(self) -> None:
        self.wanted += 1
        self._start()
        before = self._observe()
        assert before < self.slots.active
        assert len(self.slots.active - before) == 1, "adding one of N moves one N-th"

    @rule(choice=st.randoms(use_true_random=False))
    @precondition(lambda self: self.wanted > 1)
    def scale_down(self, choice: random.Random) -> None:
        self.wanted -= 1
        gone = choice.choice(self._running())
        self.pods[gone] = Endpoint(gone, ready=False, leaving=True)
        before = self._observe()
        assert len(before - self.slots.active) == 1
        assert self.slots.active < before
        del self.pods[gone]
        self._observe()

    @invariant()
    def every_replica_has_a_number(self) -> None:
        assert len(self.slots.active) == self.wanted


def test_a_deployments_ring_moves_as_little_as_it_can() -> None:
    run_state_machine_as_test(Deployment)


def test_five_thousand_endpoints_are_assigned_quickly() -> None:
    many = ready(*(f"10.{i // 250}.{i % 250}.1:8000" for i in range(5000)))
    slots = assign(EMPTY, many, 5000)
    started = time.process_time()
    after = assign(slots, [*many[1:], Endpoint("new", ready=True)], 5000)
    assert after.held[0].address == "new" or "new" in addresses(after).values()
    assert time.process_time() - started < 3, "0.1 s is the aim on a quiet machine"
