"""Seeded social graphs: a Zipf body, and one celebrity whom everybody follows."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

# Given names of people who shaped computing, networks and photography.
NAMES: Final = (
    "Ada",
    "Grace",
    "Alan",
    "Barbara",
    "Edsger",
    "Frances",
    "Donald",
    "Margaret",
    "Niklaus",
    "Radia",
    "Tim",
    "Karen",
    "Vint",
    "Evelyn",
    "John",
    "Hedy",
    "Dennis",
    "Joan",
    "Ken",
    "Annie",
    "Dorothea",
    "Ansel",
    "Julia",
    "Robert",
    "Vivian",
    "Henri",
    "Diane",
    "Louis",
    "Imogen",
    "Walker",
    "Berenice",
    "Paul",
    "Tina",
    "Edward",
    "Nadar",
    "Sally",
)

ZIPF_EXPONENT: Final = 1.0
"""Followers of the k-th most followed go as 1/k, about as in-degrees of real social networks decay in their body."""
MEAN_FOLLOWEES: Final = 8


@dataclass(frozen=True, slots=True)
class Graph:
    """People as numbers from 0. Number 0 is the celebrity.

    Attributes:
        names: Display name of each, unique.
        follows: Pairs (follower, followee), none twice, nobody follows themselves.
    """

    names: list[str]
    follows: list[tuple[int, int]]

    def followees(self, person: int) -> list[int]:
        """Whom this person follows, ascending."""
        return sorted(followee for follower, followee in self.follows if follower == person)

    def followers(self, person: int) -> list[int]:
        """Who follows this person, ascending."""
        return sorted(follower for follower, followee in self.follows if followee == person)


def make_graph(people: int, seed: int) -> Graph:
    """The same graph for the same arguments.

    Raises:
        ValueError: Fewer than three people: no graph has a celebrity, an author and a reader then.
    """
    if people < 3:
        raise ValueError("a graph needs at least 3 people")
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    names = [
        NAMES[number % len(NAMES)] + (f" {number // len(NAMES) + 1}" if number >= len(NAMES) else "")
        for number in range(people)
    ]
    weights = [1 / rank**ZIPF_EXPONENT for rank in range(1, people)]
    follows = [(follower, 0) for follower in range(1, people)]
    for follower in range(people):
        wanted = chance.randint(1, 2 * MEAN_FOLLOWEES - 1)
        chosen = set(chance.choices(range(1, people), weights, k=wanted)) - {follower}
        follows += [(follower, followee) for followee in sorted(chosen)]
    return Graph(names, follows)
