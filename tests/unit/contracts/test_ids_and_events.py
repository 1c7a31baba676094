from __future__ import annotations

import itertools
import time
from uuid import UUID

import msgspec
import pytest

from fanfold.contracts import events
from fanfold.contracts.ids import id_millis, new_id


def test_ids_are_version_7_and_rise_even_within_a_millisecond() -> None:
    ids = [new_id() for _ in range(20_000)]
    assert all(one < other for one, other in itertools.pairwise(ids))
    assert {identifier.version for identifier in ids} == {7}


def test_an_id_tells_when_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    made = id_millis(new_id())
    assert before <= made <= time.time_ns() // 1_000_000 + 1_000  # those made before may have run ahead of the clock


def test_every_event_survives_its_encoding_and_names_topic_and_key() -> None:
    created = events.PostCreated(post_id=new_id(), author_id=new_id())
    assert events.decode(events.encode(created)) == created
    assert created.partition_key == created.author_id
    for kind in events.Event.__subclasses__():
        assert kind.topic in events.TOPICS
        assert kind.key_field in kind.__struct_fields__


def test_partition_depends_on_the_key_alone() -> None:
    author = UUID(int=42)
    partitions = {events.PostCreated(post_id=new_id(), author_id=author).partition for _ in range(50)}
    assert len(partitions) == 1
    assert 0 <= partitions.pop() < events.PARTITIONS


def test_an_unknown_event_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        events.decode(msgspec.msgpack.encode({"type": "Exploded"}))
