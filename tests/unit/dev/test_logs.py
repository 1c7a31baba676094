"""The view of several log files at once."""

from __future__ import annotations

from pathlib import Path

from fanfold.dev.logs import READ_LIMIT, LogTail


def test_only_new_whole_lines_are_shown_each_with_its_writer(tmp_path: Path) -> None:
    feed, post = tmp_path / "feed.log", tmp_path / "post.log"
    feed.write_text("old\n")
    shown: list[str] = []
    tail = LogTail({"feed": feed, "gateway": post}, shown.append, colour=False)
    tail.look()
    assert not shown
    with feed.open("a") as log:
        log.write("one\ntwo\nhal")
    post.write_text("first\n")
    tail.look()
    assert shown == ["feed    | one", "feed    | two", "gateway | first"]
    with feed.open("a") as log:
        log.write("f\n")
    tail.look()
    assert shown[3:] == ["feed    | half"]


def test_a_line_without_end_does_not_stop_the_view(tmp_path: Path) -> None:
    log = tmp_path / "log"
    shown: list[str] = []
    tail = LogTail({"x": log}, shown.append, colour=False)
    log.write_bytes(b"a" * (READ_LIMIT + 1) + b"\nnext\n")
    for _ in range(3):
        tail.look()
    assert shown[-1] == "x | next"


def test_bytes_that_are_no_text_are_shown_somehow(tmp_path: Path) -> None:
    log = tmp_path / "log"
    shown: list[str] = []
    tail = LogTail({"x": log}, shown.append, colour=False)
    log.write_bytes(b"\xff\xfe\n")
    tail.look()
    assert shown == ["x | \ufffd\ufffd"]
