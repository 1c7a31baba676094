from __future__ import annotations

from pathlib import Path
from typing import Any

from tools.local.images import Image, missing

IMAGE = Image("fanfold", "localhost/fanfold/fanfold:0.1.0", Path("fanfold.tar"), "abc")


def nodes(*names: list[str]) -> dict[str, Any]:
    return {"items": [{"status": {"images": [{"names": list(one)}]}} for one in names]}


def test_what_every_node_has_with_the_same_contents_is_not_loaded_again() -> None:
    assert missing([IMAGE], {IMAGE.reference: "abc"}, nodes([IMAGE.reference])) == []


def test_changed_contents_are_loaded() -> None:
    assert missing([IMAGE], {IMAGE.reference: "old"}, nodes([IMAGE.reference])) == [IMAGE]


def test_a_purged_cluster_is_given_everything_whatever_we_remember() -> None:
    assert missing([IMAGE], {IMAGE.reference: "abc"}, {"items": [{"status": {}}]}) == [IMAGE]


def test_one_node_without_it_is_enough() -> None:
    assert missing([IMAGE], {IMAGE.reference: "abc"}, nodes([IMAGE.reference], ["other"])) == [IMAGE]


def test_an_image_that_lost_its_name_to_a_newer_one_is_passed_over() -> None:
    present = {"items": [{"status": {"images": [{"names": None}, {"names": [IMAGE.reference]}]}}]}
    assert missing([IMAGE], {IMAGE.reference: "abc"}, present) == []
