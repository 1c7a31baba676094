"""What a ring tells of itself: whole shares, and the virtual node behind an answer."""

from __future__ import annotations

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from fanfold.contracts.ring import SPACE, Ring
from fanfold.contracts.snapshot import Slot

RINGS = st.builds(
    lambda weights, nodes: Ring([Slot(f"feed-{n}", "", weight=w) for n, w in enumerate(weights)], nodes),
    st.lists(st.integers(1, 3), min_size=1, max_size=8),
    st.integers(1, 40),
)


@given(RINGS)
def test_spans_cover_the_whole_circle(ring: Ring) -> None:
    assert sum(ring.spans()) == SPACE
    assert min(ring.spans()) >= 0


def test_spans_are_the_share_of_keys_that_owner_gives_to_each_slot() -> None:
    ring = Ring([Slot(f"feed-{n}", "") for n in range(3)], 5)
    keys = range(0, SPACE, SPACE // 20_000)
    counted = [0, 0, 0]
    for key in keys:
        counted[ring.owner(key)] += 1
    for span, count in zip(ring.spans(), counted, strict=True):
        assert span / SPACE == pytest.approx(count / len(keys), abs=0.001)


@given(RINGS, st.integers(0, SPACE - 1))
def test_a_keys_virtual_node_is_the_owners_and_the_next_clockwise(ring: Ring, key: int) -> None:
    position, number = ring.virtual_node(key)
    assert xxhash.xxh3_64_intdigest(f"{ring.names[ring.owner(key)]}#{number}".encode()) == position
    assert ring.virtual_node(position) == (position, number)
    assert ring.owner(position) == ring.owner(key)


def test_the_key_after_the_last_position_wraps_to_the_first_virtual_node() -> None:
    ring = Ring([Slot("feed-0", "")], 3)
    assert ring.virtual_node(SPACE - 1) == ring.virtual_node(0)


def test_an_empty_ring_has_no_spans() -> None:
    assert Ring([]).spans() == ()
