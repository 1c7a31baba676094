"""`kubectl fanfold ring`: shares, and where users land."""

from __future__ import annotations

import io
from typing import Any
from uuid import UUID

import msgspec
import pytest
from rich.console import Console

from fanfold.contracts.ring import Ring, key_of
from fanfold.contracts.snapshot import SNAPSHOT_KEY, Slot, Snapshot, decode, encode
from fanfold_operator.companion import pods, render
from fanfold_operator.companion.ring import Explanation, RingError, explain, snapshot_of

USER = "0197b2c0-0000-7000-8000-000000000001"
FEED = [
    Slot("feed-0", "10.0.0.1:8000"),
    Slot("feed-1", "[fd00::2]:8000"),
    Slot("feed-2", "10.0.0.3:8000"),
    Slot("feed-10", "10.0.0.9:8000", "draining"),
]
SNAPSHOT = decode(encode(Snapshot("prod/demo", 9, {"feed": FEED, "post": [Slot("post-0", "10.0.0.4:8000")]})))


def pod(name: str, address: str) -> pods.Pod:
    return pods.read({"metadata": {"name": name}, "spec": {"nodeName": "node-1"}, "status": {"podIP": address}})


PODS = [pod("demo-feed-a", "10.0.0.1"), pod("demo-feed-b", "fd00::2"), pod("demo-feed-c", "10.0.0.3")]


def test_shares_are_exact_and_come_to_one_and_draining_slots_have_none() -> None:
    feed = explain(SNAPSHOT, PODS).services[0]
    assert [slot.slot for slot in feed.slots] == ["feed-0", "feed-1", "feed-2", "feed-10"]
    assert sum(slot.share for slot in feed.slots) == pytest.approx(1, abs=1e-12)
    assert (feed.slots[3].state, feed.slots[3].share, feed.slots[3].positions) == ("draining", 0, 0)
    assert 1 < feed.imbalance < 1.4


def test_slots_know_their_pods_by_address() -> None:
    feed = explain(SNAPSHOT, PODS).services[0]
    assert [slot.pod for slot in feed.slots] == ["demo-feed-a", "demo-feed-b", "demo-feed-c", None]


def test_a_user_lands_where_the_gateway_sends_them() -> None:
    explanation = explain(SNAPSHOT, PODS, user=USER)
    landing = explanation.landings[0]
    ring, key = Ring(FEED), key_of(UUID(USER).bytes)
    names = [ring.names[index] for index in ring.walk(key)]
    assert [landing.home.slot, *landing.then] == names
    assert landing.virtual_node.rpartition("#")[0] == names[0]
    assert explanation.key == f"{key:016x}"
    assert landing.position == f"{ring.virtual_node(key)[0]:016x}"
    assert explanation.landings[1].then == ()


def test_one_service_can_be_asked_for_and_others_are_refused_with_what_there_is() -> None:
    assert [one.service for one in explain(SNAPSHOT, [], "post").services] == ["post"]
    with pytest.raises(RingError, match="no service 'psot' on the ring; there are: feed, post"):
        explain(SNAPSHOT, [], "psot")


def test_what_is_no_user_id_is_refused() -> None:
    with pytest.raises(RingError, match="'grace' is no user id"):
        explain(SNAPSHOT, [], user="grace")


def test_a_service_without_replicas_owns_nothing_and_takes_nobody() -> None:
    empty = decode(encode(Snapshot("prod/demo", 1, {"feed": []})))
    explanation = explain(empty, [], user=USER)
    assert explanation.services[0].slots == ()
    assert explanation.landings == ()
    assert "no replica is ready" in printed(explanation)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "is not there yet"),
        ("{}", "is damaged"),
        (encode(SNAPSHOT).decode().replace("10.0.0.1", "10.0.0.8"), "wrong checksum"),
    ],
    ids=["none", "no snapshot", "changed"],
)
def test_a_snapshot_that_cannot_be_trusted_is_not_shown(text: str | None, words: str) -> None:
    config_map: Any = {"data": {SNAPSHOT_KEY: text} if text else {}}
    with pytest.raises(RingError, match=words):
        snapshot_of(config_map, "demo-snapshot")


def printed(explanation: Explanation) -> str:
    text = io.StringIO()
    Console(file=text, width=160, highlight=False).print(*render.ring(explanation), sep="\n")
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def test_it_reads_so() -> None:
    explanation = msgspec.structs.replace(SNAPSHOT, services={"feed": FEED[:2]}, virtual_nodes=4)
    assert printed(explain(decode(encode(explanation)), PODS, user=USER)) == GOLDEN


def test_it_encodes_as_json_with_every_name() -> None:
    document = msgspec.json.decode(msgspec.json.encode(explain(SNAPSHOT, PODS, user=USER)))
    assert document["services"][0]["slots"][0]["pod"] == "demo-feed-a"
    assert document["landings"][0]["home"]["node"] == "node-1"


GOLDEN = """\
prod/demo  epoch 9  checksum 602f59b73595618d verified  4 virtual nodes  bounded load 1.25
SERVICE  SLOT    STATE    SHARE              ADDRESS         POD          NODE
feed     feed-0  active  50.66%  ██████████  10.0.0.1:8000   demo-feed-a  node-1
         feed-1  active  49.34%  ██████████  [fd00::2]:8000  demo-feed-b  node-1

user 0197b2c0-0000-7000-8000-000000000001
key  3e55a9c2eee424f3  (XXH3 of the id's 16 bytes; the next virtual node clockwise owns it)
SERVICE  VIRTUAL NODE  POSITION          SLOT    ADDRESS         POD          NODE    THEN, IF FULL
feed     feed-1#0      8808f6c6aa9f4b7f  feed-1  [fd00::2]:8000  demo-feed-b  node-1  feed-0"""
