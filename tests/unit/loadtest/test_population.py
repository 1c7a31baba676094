"""Large graphs: what is asked for is there, the same each time; published edge lists; whom runs log in as."""

from __future__ import annotations

import gzip
import stat
from pathlib import Path

import numpy as np
import pytest

from fanfold_loadtest.crowd import AUTHORS, choose, read_crowd, write_crowd
from fanfold_loadtest.documents import DocumentError
from fanfold_loadtest.population import Population, degrees, planted, read_edges
from fanfold_loadtest.seeding import EPOCH_MS, person_ids


def pairs(graph: Population) -> list[tuple[int, int]]:
    return list(zip(graph.followers.tolist(), graph.followees.tolist(), strict=True))


def test_a_planted_celebrity_has_exactly_so_many_followers() -> None:
    graph = planted(500, [300, 20_000], seed=7)
    assert graph.people == 20_002
    assert graph.in_degrees()[:2].tolist() == [20_000, 300]
    assert graph.followers_of(1).size == 300
    found = pairs(graph)
    assert len(set(found)) == len(found)
    assert all(follower != followee for follower, followee in found)


def test_the_same_seed_makes_the_same_graph_and_ids_and_another_does_not() -> None:
    one, same, other = planted(300, [500], 1), planted(300, [500], 1), planted(300, [500], 2)
    assert pairs(one) == pairs(same)
    assert one.tag == same.tag != other.tag
    assert (person_ids(one) == person_ids(same)).all()
    assert pairs(one) != pairs(other)


def test_ids_are_uuids_of_version_7_in_order_and_unique() -> None:
    ids = [one.tobytes() for one in person_ids(planted(300, [5_000], 1))]
    assert len(set(ids)) == 5_001
    assert ids == sorted(ids)
    assert {one[6] >> 4 for one in ids} == {7}
    assert {one[8] >> 6 for one in ids} == {2}
    assert int.from_bytes(ids[9][:6], "big") == EPOCH_MS + 9


def test_the_body_follows_zipfs_law() -> None:
    found = degrees(planted(20_000, [20_000], seed=3), planted_people=1)
    assert found.exponent == pytest.approx(-1, abs=0.1)
    assert found.top[0] == 20_000
    assert found.mean == pytest.approx(1 + 8 * 0.85, rel=0.15)  # repeated draws are one follow


def test_degrees_are_counted_by_hand_too() -> None:
    edges = np.array([[1, 2, 3, 4, 0], [0, 0, 0, 0, 1]], dtype=np.int32)
    found = degrees(Population("0", "by hand", 5, edges[0], edges[1]))
    assert (found.people, found.follows, found.followed, found.top) == (5, 5, 2, [4, 1, 0, 0, 0])
    assert (found.mean, found.p50, found.p90) == (1.0, 0, 4)
    assert found.exponent is None


@pytest.mark.parametrize("name", ["edges.txt", "edges.txt.gz"])
def test_a_published_list_is_read_as_it_is(tmp_path: Path, name: str) -> None:
    text = "# FromNodeId\tToNodeId\n30\t10\n20\t10\n\n10,30\n20 10\n20 20\n"
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    graph = read_edges(path)
    assert graph.people == 3
    assert pairs(graph) == [(1, 0), (0, 1), (2, 1)]  # 30 is number 0, 10 number 1, 20 number 2
    assert graph.skipped == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2\n1 2 3\n", r"edges\.txt:2: edge: 3 fields; allowed are two: follower followee"),
        ("1 2\n\n7\n", r"edges\.txt:3: edge: 1 fields; allowed are two"),
        (f"1 {'x' * 65}\n", r"edges\.txt:1: edge: a label of more than 64 characters"),
        ("# nothing\n", r"edges\.txt: no edges: give a line"),
    ],
)
def test_a_mistake_in_an_edge_list_is_named_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "edges.txt"
    path.write_text(text)
    with pytest.raises(DocumentError, match=message):
        read_edges(path)


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"absent\.txt: cannot be read"):
        read_edges(tmp_path / "absent.txt")


def test_a_crowd_begins_with_the_celebrity_and_ends_with_the_follower_whom_fan_out_reaches_last() -> None:
    graph = planted(200, [5_000], seed=1)
    crowd = choose(graph, degrees(graph, 1), 50, "secret")
    part = crowd.part(30)
    assert part.members[0] == 0
    assert len(part.members) == 30
    assert part.members[-1] == graph.followers_of(0)[-1]
    celebrity_followers = set(graph.followers_of(0).tolist())
    assert set(part.members[AUTHORS + 1 :]) <= celebrity_followers
    names = part.graph()
    assert len(names.followers(0)) == 29
    assert any(followee != 0 for _, followee in names.follows)  # feeds are of several authors
    with pytest.raises(
        DocumentError, match=r"wants 500 people, the seeded crowd has 62: seed again with --readers 500"
    ):
        crowd.part(500)


def test_a_crowd_is_kept_for_its_owner_only(tmp_path: Path) -> None:
    graph = planted(20, [30], seed=1)
    crowd = choose(graph, degrees(graph, 1), 10, "secret")
    path = tmp_path / "crowd.json"
    write_crowd(path, crowd)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_crowd(path) == crowd
    path.write_text("{}")
    with pytest.raises(DocumentError, match=r"crowd\.json: is no crowd"):
        read_crowd(path)


def test_a_graph_without_a_celebrity_is_refused() -> None:
    edges = np.array([[1, 2], [0, 0]], dtype=np.int32)
    graph = Population("0", "edges of x", 3, edges[0], edges[1])
    with pytest.raises(DocumentError, match="edges of x: nobody has 5 followers"):
        choose(graph, degrees(graph), 10, "secret")
