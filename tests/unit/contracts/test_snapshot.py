from __future__ import annotations

import msgspec
import pytest

from fanfold.contracts import snapshot as snapshots
from fanfold.contracts.snapshot import Slot, Snapshot, SnapshotError

EXAMPLE = Snapshot(
    platform="default/demo",
    epoch=7,
    services={"post": [Slot("post-0", "10.0.0.2:8000")], "feed": [Slot("feed-0", "10.0.0.1:8000", state="draining")]},
)


def test_what_is_encoded_is_decoded() -> None:
    decoded = snapshots.decode(snapshots.encode(EXAMPLE))
    assert msgspec.structs.replace(decoded, checksum="") == EXAMPLE


def test_equal_snapshots_give_equal_bytes_whatever_the_order_of_services() -> None:
    turned = msgspec.structs.replace(EXAMPLE, services=dict(reversed(EXAMPLE.services.items())))
    assert snapshots.encode(turned) == snapshots.encode(EXAMPLE)


def test_one_changed_byte_is_refused() -> None:
    data = snapshots.encode(EXAMPLE).replace(b"10.0.0.1", b"10.0.0.9")
    with pytest.raises(SnapshotError, match="checksum"):
        snapshots.decode(data)


def test_an_unknown_format_is_refused_by_name() -> None:
    data = snapshots.encode(msgspec.structs.replace(EXAMPLE, format=2))
    with pytest.raises(SnapshotError, match="format 2"):
        snapshots.decode(data)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"platform": 3}'])
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(SnapshotError, match="not a snapshot"):
        snapshots.decode(data)


def test_a_slot_named_twice_is_refused() -> None:
    twice = {"feed": [Slot("feed-0", "10.0.0.1:8000"), Slot("feed-0", "10.0.0.2:8000")]}
    with pytest.raises(SnapshotError, match="twice"):
        snapshots.decode(snapshots.encode(msgspec.structs.replace(EXAMPLE, services=twice)))
