"""What a seeded graph leaves for runs: some of its people, whose password is known, and who of them follows whom."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from fanfold_loadtest.documents import DocumentError
from fanfold_loadtest.graph import Graph
from fanfold_loadtest.population import Degrees, Population

if TYPE_CHECKING:
    from pathlib import Path

FORMAT: Final = 1
AUTHORS: Final = 11
"""The most followed after the celebrity, who post as well."""
FEWEST: Final = 5
"""Followers, or there is nothing to measure."""
USERNAME: Final = "{tag}_{number:08d}"


class Crowd(msgspec.Struct, frozen=True, kw_only=True):
    """The people of a graph that a run logs in as. The file holds their password: mode 0600.

    Attributes:
        tag: Of the graph.
        source: Where it comes from.
        degrees: Statistics of the whole graph.
        password: Of all members, and of nobody else.
        members: Numbers of people in the graph: the celebrity, other authors, then followers of the celebrity.
        follows: Pairs of positions in `members`: follower, followee.
    """

    format: int = FORMAT
    tag: str
    source: str
    degrees: Degrees
    password: str
    members: list[int]
    follows: list[tuple[int, int]]

    def username(self, position: int) -> str:
        """Of a member."""
        return USERNAME.format(tag=self.tag, number=self.members[position])

    def part(self, people: int) -> Crowd:
        """The first members and the last one: its number is the highest, so fan-out reaches it last.

        Raises:
            DocumentError: There are not so many.
        """
        if people > len(self.members):
            raise DocumentError(
                f"the scenario wants {people} people, the seeded crowd has {len(self.members)}: "
                f"seed again with --readers {people}"
            )
        places = [*range(people - 1), len(self.members) - 1]
        new = {old: place for place, old in enumerate(places)}
        return msgspec.structs.replace(
            self,
            members=[self.members[place] for place in places],
            follows=[(new[one], new[other]) for one, other in self.follows if one in new and other in new],
        )

    def graph(self) -> Graph:
        """Who of the members follows whom."""
        return Graph([self.username(position) for position in range(len(self.members))], self.follows)


def choose(population: Population, degrees: Degrees, readers: int, password: str) -> Crowd:
    """Whom runs log in as: the most followed, the next ones, and ``readers`` of the celebrity's followers.

    They are drawn by the graph's tag. Those come first who follow another of the authors too, because a feed of one
    author is no usual one. The last is the follower with the highest number, whom fan-out reaches last.

    Raises:
        DocumentError: Nobody has enough followers.
    """
    counts = population.in_degrees()
    ranked = np.argsort(-counts, kind="stable")[: AUTHORS + 1]
    celebrity = int(ranked[0])
    authors = [int(person) for person in ranked[1:] if counts[person] > 0]
    others = np.setdiff1d(population.followers_of(celebrity), authors)
    if others.size < FEWEST:
        raise DocumentError(f"{population.source}: nobody has {FEWEST} followers: there is no celebrity")
    last, others = int(others[-1]), others[:-1]
    mixed = np.unique(population.followers[np.isin(population.followees, authors)])
    chance = np.random.default_rng(int(population.tag, 16))
    sample = chance.permutation(others)
    sample = sample[np.argsort(~np.isin(sample, mixed), kind="stable")][: readers - 1]
    members = [celebrity, *authors, *map(int, sample), last]
    return Crowd(
        tag=population.tag,
        source=population.source,
        degrees=degrees,
        password=password,
        members=members,
        follows=_among(population, members),
    )


def _among(population: Population, members: list[int]) -> list[tuple[int, int]]:
    places = np.full(population.people, -1, dtype=np.int64)
    places[members] = np.arange(len(members))
    pairs = np.stack([places[population.followers], places[population.followees]], axis=1)
    return [(int(follower), int(followee)) for follower, followee in pairs[(pairs >= 0).all(axis=1)]]


def read_crowd(path: Path) -> Crowd:
    """The crowd that a seeding left.

    Raises:
        DocumentError: The file cannot be used.
    """
    try:
        crowd = msgspec.json.decode(path.read_bytes(), type=Crowd)
    except OSError as error:
        raise DocumentError(f"{path}: cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise DocumentError(f"{path}: is no crowd of `fanfold-loadtest seed`: {error}") from error
    if crowd.format != FORMAT:
        raise DocumentError(f"{path}: format {crowd.format}, this version reads {FORMAT}: seed again")
    return crowd


def write_crowd(path: Path, crowd: Crowd) -> None:
    """Keep it, readable by its owner only; a reader never meets half of it."""
    partial = path.with_name(path.name + ".new")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(crowd))
    partial.replace(path)
