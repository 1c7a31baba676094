"""The ring under any order of events: what is seen late, at once, twice, or by an operator that was just restarted."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from fanfold.contracts.resources import HashRingSpec
from fanfold.contracts.ring import SPACE
from fanfold.contracts.ring import Ring as Circle
from fanfold.contracts.snapshot import Slot
from fanfold_operator.ring.slots import EMPTY, Endpoint, Slots, assign
from fanfold_operator.ring.snapshot import Memory, Ring, advance, recall

SPEC = HashRingSpec(platform="demo", services=["feed"])


def active(ring: Ring) -> dict[str, str]:
    """Address by slot, of those that own keys."""
    return {slot.slot: slot.address for slot in ring.snapshot.services["feed"] if slot.state == "active"}


class AnyOrder(RuleBasedStateMachine):
    """Pods come, turn ready and unready, are terminated and vanish; the operator looks when it happens to.

    It remembers nothing but the ConfigMap, so every look is also one after a restart.
    """

    def __init__(self) -> None:
        super().__init__()
        self.serial = 0
        self.wanted = 3
        self.most = 3
        self.pods: dict[str, Endpoint] = {}
        for _ in range(self.wanted):
            self.start(ready=True)
        self.data: dict[str, str] | None = None
        self.ring = self._advanced()
        self.data = self.ring.data()

    def _advanced(self) -> Ring:
        memory = recall({"data": self.data}) if self.data else Memory(None, {})
        endpoints = {"feed": list(self.pods.values())}
        sizes = {"feed": self.wanted}
        return advance(memory, platform="prod/demo", spec=SPEC, endpoints=endpoints, wanted=sizes, least_epoch=0)

    def _pick(self, choice: random.Random) -> str:
        return choice.choice(sorted(self.pods))

    @rule(ready=st.sampled_from([True, True, False]))
    @precondition(lambda self: len(self.pods) < 12)
    def start(self, *, ready: bool) -> None:
        self.serial += 1
        name = f"10.0.{self.serial // 250}.{self.serial % 250}:8000"
        self.pods[name] = Endpoint(name, ready=ready)

    @rule(choice=st.randoms(use_true_random=False), ready=st.booleans())
    @precondition(lambda self: self.pods)
    def turn(self, choice: random.Random, *, ready: bool) -> None:
        name = self._pick(choice)
        if not self.pods[name].leaving:
            self.pods[name] = Endpoint(name, ready=ready)

    @rule(choice=st.randoms(use_true_random=False))
    @precondition(lambda self: self.pods)
    def terminate(self, choice: random.Random) -> None:
        name = self._pick(choice)
        self.pods[name] = Endpoint(name, ready=False, leaving=True)

    @rule(choice=st.randoms(use_true_random=False))
    @precondition(lambda self: self.pods)
    def vanish(self, choice: random.Random) -> None:
        del self.pods[self._pick(choice)]

    @rule(wanted=st.integers(0, 8))
    def scale(self, wanted: int) -> None:
        self.wanted = wanted

    @rule()
    def look(self) -> None:
        before, self.ring = self.ring, self._advanced()
        self.most = max(self.most, self.wanted, len(self.pods))
        self._judge(before)
        self.data = self.ring.data()
        again = self._advanced()
        assert not again.changed, "a second look, or a restarted operator, changes nothing"
        assert again.data() == self.data

    def _judge(self, before: Ring) -> None:
        after = self.ring
        epochs = before.snapshot.epoch, after.snapshot.epoch
        same = before.snapshot.services == after.snapshot.services
        assert epochs[1] == epochs[0] + (not same), "an epoch a change, and none without"
        usable = {name for name, pod in self.pods.items() if pod.usable}
        held_before = before.snapshot.services["feed"]  # a pod that was unready for a while still holds its slot
        stayed = {slot.slot: slot.address for slot in held_before if slot.address in usable}
        for slot, address in stayed.items():
            assert active(after)[slot] == address, "who stays ready, or is ready again, keeps the slot"
        assert len(active(after)) <= max(self.wanted, len(stayed)), "a rollout's surplus pod gets no slot of its own"
        held, vacant = after.snapshot.services["feed"], after.vacant.get("feed", frozenset())
        assert len(vacant) <= max(0, self.wanted - len(held)), "slots are kept for replicas somebody wants"
        staying = {name for name, pod in self.pods.items() if not pod.leaving}
        gone = {slot for slot, address in active(before).items() if address not in staying}
        lost = gone - active(after).keys()
        known = {(slot.slot, slot.address) for slot in before.snapshot.services["feed"]}
        heirs = active(after).items() - known
        if lost:
            assert all(slot in active(before) for slot, _ in heirs), "what was just lost is handed on first"

    @invariant()
    def nothing_stands_twice(self) -> None:
        slots = self.ring.snapshot.services["feed"]
        assert len({slot.slot for slot in slots}) == len(slots)
        assert len({slot.address for slot in slots}) == len(slots)
        assert not {f"feed-{number}" for number in self.ring.vacant.get("feed", ())} & {slot.slot for slot in slots}

    @invariant()
    def what_is_remembered_is_bounded(self) -> None:
        numbers = [int(slot.slot.removeprefix("feed-")) for slot in self.ring.snapshot.services["feed"]]
        numbers += self.ring.vacant.get("feed", ())
        assert len(numbers) <= self.most, "no more slots than replicas were wanted or there"
        assert max(numbers, default=0) < 2 * self.most, "and their names do not count up for ever"


def test_the_ring_is_sound_in_any_order_of_events() -> None:
    run_state_machine_as_test(AnyOrder, settings=settings(max_examples=100, stateful_step_count=40, deadline=None))


pods = st.lists(st.integers(0, 9), unique=True, max_size=8)


def _ready(numbers: list[int]) -> list[Endpoint]:
    return [Endpoint(f"10.0.0.{number}:8000", ready=True) for number in numbers]


def _held(slots: Slots) -> dict[str, int]:
    return {holder.address: number for number, holder in slots.held.items()}


@given(st.lists(pods, min_size=1, max_size=6), st.data())
@settings(deadline=None)
def test_who_is_there_throughout_keeps_the_slot_whichever_steps_were_seen(
    history: list[list[int]], data: st.DataObject
) -> None:
    """Debouncing skips steps; a watch that was broken off replays them."""
    wanted = max(map(len, history))
    first = assign(EMPTY, _ready(history[0]), wanted)
    some = [step for step in history[1:-1] if data.draw(st.booleans())] + history[1:-1] * data.draw(st.integers(0, 2))
    results = []
    for seen in (history[1:], [*some, history[-1]]):
        slots = first
        for step in seen:
            slots = assign(slots, _ready(step), wanted)
        results.append(slots)
    throughout = set(history[0]).intersection(*history)
    for slots in results:
        held = _held(slots)
        assert len(slots.active) == len(history[-1]), "all are wanted, all own keys"
        for number in throughout:
            assert held[f"10.0.0.{number}:8000"] == _held(first)[f"10.0.0.{number}:8000"]


@given(st.integers(2, 40), st.integers(1, 5), st.sampled_from(["feed", "post", "notification"]))
@settings(max_examples=40, deadline=None)
def test_no_change_of_one_replica_moves_more_than_its_share(count: int, weight: int, service: str) -> None:
    """By the arcs of the circle, not by a sample of keys.

    A slot of 160 points owns 1 / N of the keys, give or take 8 % (1 / sqrt(160)); one of several times as many, less.
    """
    members = [Slot(f"{service}-{number}", f"10.0.0.{number}:8000") for number in range(count)]
    smaller, larger = Circle(members[:-1], 160 * weight), Circle(members, 160 * weight)
    moved = larger.spans()[larger.names.index(f"{service}-{count - 1}")] / SPACE
    bound = 1.2 if weight > 2 else 1.35
    assert moved <= bound / count
    for key in range(0, SPACE, SPACE // 997):
        owners = smaller.names[smaller.owner(key)], larger.names[larger.owner(key)]
        assert owners[0] == owners[1] or owners[1] == f"{service}-{count - 1}", "and nothing moves between the others"
