from __future__ import annotations

import pytest

from fanfold_loadtest.graph import make_graph


@pytest.mark.parametrize("people", [3, 5, 40, 300])
def test_everybody_follows_the_celebrity_nobody_follows_themselves_and_nobody_twice(people: int) -> None:
    graph = make_graph(people, seed=1)
    assert len(set(graph.names)) == people
    assert graph.followers(0) == list(range(1, people))
    assert len(set(graph.follows)) == len(graph.follows)
    assert all(follower != followee for follower, followee in graph.follows)
    assert all(0 <= number < people for pair in graph.follows for number in pair)


def test_the_same_seed_gives_the_same_graph() -> None:
    assert make_graph(50, seed=3) == make_graph(50, seed=3)
    assert make_graph(50, seed=3) != make_graph(50, seed=4)


def test_a_few_are_followed_by_many_and_most_by_few() -> None:
    graph = make_graph(300, seed=1)
    counts = sorted((len(graph.followers(number)) for number in range(1, 300)), reverse=True)
    assert counts[0] > 10 * counts[len(counts) // 2]
    assert sum(counts[:30]) > sum(counts[30:])


def test_fewer_than_three_people_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        make_graph(2, seed=1)
