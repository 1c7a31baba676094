from __future__ import annotations

import msgspec
import pytest
import xxhash

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


GOLDEN = (
    b'{"bounded_load":1.25,"epoch":7,"format":1,"platform":"default/demo",'
    b'"services":{"feed":[{"address":"10.0.0.1:8000","slot":"feed-0","state":"draining"}],'
    b'"post":[{"address":"10.0.0.2:8000","slot":"post-0"}]},"virtual_nodes":160,"checksum":"67809e711afa36f4"}'
)


def test_it_is_written_so() -> None:
    assert snapshots.encode(EXAMPLE) == GOLDEN, "gateways of other versions read this"


def test_fields_of_a_newer_writer_are_skipped_and_the_checksum_still_holds() -> None:
    body = b'{"epoch":7,"format":1,"platform":"default/demo","services":{"feed":[{"address":"10.0.0.1:8000",'
    body += b'"slot":"feed-0","zone":"a"}]},"written_by":"2.0"}'
    data = body[:-1] + b',"checksum":"' + xxhash.xxh3_64_hexdigest(body).encode() + b'"}'
    assert snapshots.decode(data).services == {"feed": [Slot("feed-0", "10.0.0.1:8000")]}
    with pytest.raises(SnapshotError, match="checksum"):
        snapshots.decode(data.replace(b'"zone":"a"', b'"zone":"b"'))


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_line_end_of_a_file_does_no_harm(end: bytes) -> None:
    assert snapshots.decode(snapshots.encode(EXAMPLE) + end).epoch == 7


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
