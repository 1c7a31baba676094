"""Which version may work with which schema."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fanfold.contracts.components import MIGRATED
from fanfold.kit.compatibility import IncompatibleError, Lineage, Mark, judge, lineage
from fanfold.kit.migrations import config

FIRST = Lineage(("1",), "1")
EXPANDS = Lineage(("1", "2"), "1")
CONTRACTS = Lineage(("1", "2", "3"), "2")
TAKES_AWAY = re.compile(r"op\.(drop_|rename_|alter_column)|batch_alter_table")


def test_an_empty_database_takes_any_version() -> None:
    assert judge("post", CONTRACTS, None, None) == Mark("2", "3")


def test_a_version_that_expands_may_follow_and_go_back() -> None:
    mark = judge("post", EXPANDS, "1", Mark("1", "1"))
    assert mark == Mark("1", "2")
    assert judge("post", FIRST, "2", mark) == Mark("1", "1")


def test_what_runs_must_know_what_the_next_revision_needs() -> None:
    assert judge("post", CONTRACTS, "2", Mark("1", "2")) == Mark("2", "3")
    with pytest.raises(IncompatibleError, match=r"post: revision 3 needs code that knows 2, and what runs knows 1\."):
        judge("post", CONTRACTS, "1", Mark("1", "1"))
    with pytest.raises(IncompatibleError, match="what runs knows 1"):
        judge("post", CONTRACTS, "2", judge("post", FIRST, "2", Mark("1", "2")))


def test_nobody_goes_back_behind_what_the_schema_needs() -> None:
    mark = Mark("2", "3")
    assert judge("post", EXPANDS, "3", mark) == Mark("2", "2")
    with pytest.raises(IncompatibleError, match="the schema is at revision 3 and needs code that knows revision 2"):
        judge("post", FIRST, "3", mark)
    with pytest.raises(IncompatibleError, match="does not say what it needs"):
        judge("post", FIRST, "3", None)


@pytest.mark.parametrize("room", MIGRATED)
def test_a_revision_that_takes_something_away_says_whom_it_leaves_behind(room: str) -> None:
    known = lineage(config(room))
    assert known.needs in known.revisions
    versions = Path(config(room).get_main_option("script_location") or "") / "versions"
    for number, file in enumerate(sorted(versions.glob("*.py"))):
        source = file.read_text().partition("def downgrade")[0]
        needs = re.search(r'^needs = "(\w+)"$', source, re.MULTILINE)
        if number and TAKES_AWAY.search(source):
            assert needs, f"{file.name}: say with needs = which revision code must know to work without what goes"
        if needs:
            assert needs.group(1) in known.revisions[:number], f"{file.name}: what runs before it cannot know it"
