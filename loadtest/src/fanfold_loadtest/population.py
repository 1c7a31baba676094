"""Large social graphs as arrays: a seeded body with planted celebrities, or the edges of a published graph.

The body's in-degrees follow Zipf's law, as those of real social networks do about; a planted celebrity has as many
followers as asked for. Everything is drawn from a seed: the same arguments make the same graph.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from fanfold_loadtest.documents import DocumentError
from fanfold_loadtest.graph import MEAN_FOLLOWEES, ZIPF_EXPONENT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

MAX_PEOPLE: Final = 20_000_000
MAX_EDGES: Final = 200_000_000
MAX_LABEL: Final = 64
TAG_DIGITS: Final = 8
FEW: Final = 10
"""With fewer ranks than this no exponent is fitted."""


@dataclass(frozen=True, slots=True)
class Population:
    """People as numbers from 0, in falling order of wanted followers for those that were planted.

    Attributes:
        tag: Names the graph: the same for the same graph, wherever it is made.
        source: Where it comes from, for people.
        people: How many.
        followers: Of each follow, who follows; sorted by followee, then follower. No pair is there twice.
        followees: Of each follow, who is followed.
        skipped: Edges of a file that were left out: repetitions, and people who follow themselves.
    """

    tag: str
    source: str
    people: int
    followers: NDArray[np.int32]
    followees: NDArray[np.int32]
    skipped: int = 0

    def in_degrees(self) -> NDArray[np.int64]:
        """Followers of each person."""
        return np.bincount(self.followees, minlength=self.people)

    def followers_of(self, person: int) -> NDArray[np.int32]:
        """Who follows a person, ascending."""
        low, high = np.searchsorted(self.followees, [person, person + 1])
        return self.followers[low:high]


class Degrees(msgspec.Struct, frozen=True, kw_only=True):
    """How many followers people have.

    Attributes:
        people: How many people.
        follows: How many follows.
        followed: People with a follower.
        mean: Followers on average.
        p50: Nearest-rank percentiles of followers.
        top: Followers of the most followed, falling.
        exponent: Slope of followers over rank, both as logarithms, of those who were not planted: Zipf's is -1.
            Null where there are too few.
    """

    people: int
    follows: int
    followed: int
    mean: float
    p50: int
    p90: int
    p99: int
    top: list[int]
    exponent: float | None


def planted(body: int, celebrities: Sequence[int], seed: int, mean_followees: int = MEAN_FOLLOWEES) -> Population:
    """A Zipf body, and celebrities with exactly so many followers, who come first.

    Args:
        body: People who follow each other.
        celebrities: Followers of each; there are as many people as the largest needs.
        seed: Of everything that is drawn.
        mean_followees: Whom each of the body follows on average, celebrities not counted.

    Raises:
        ValueError: A number is out of range.
    """
    sizes = sorted(celebrities, reverse=True)
    plain = max(body, *sizes, 2) if sizes else max(body, 2)
    if body < 0 or any(size < 1 for size in sizes) or plain + len(sizes) > MAX_PEOPLE:
        raise ValueError(f"a graph has up to {MAX_PEOPLE:,} people, and a celebrity at least one follower")
    chance = np.random.default_rng(seed)
    first = len(sizes)
    parts = [_body(body, first, mean_followees, chance)]
    for number, size in enumerate(sizes):
        # The largest is followed by everybody, smaller ones by some who are drawn.
        chosen = np.arange(plain) if size == plain else chance.choice(plain, size, replace=False)
        parts.append(np.stack([chosen + first, np.full(size, number)]))
    edges = np.concatenate(parts, axis=1)
    told = (
        f"planted: body {body}, celebrities {', '.join(map(str, sizes)) or 'none'}, mean {mean_followees}, seed {seed}"
    )
    return _population(hashlib.sha256(told.encode()).hexdigest()[:TAG_DIGITS], told, plain + first, edges)


def _body(people: int, first: int, mean: int, chance: np.random.Generator) -> NDArray[np.int64]:
    if people < 2:
        return np.empty((2, 0), dtype=np.int64)
    wanted = chance.integers(1, 2 * mean, size=people)
    weights = 1 / np.arange(1, people + 1) ** ZIPF_EXPONENT
    followers = np.repeat(np.arange(people), wanted)
    followees = chance.choice(people, followers.size, p=weights / weights.sum())
    return np.stack([followers, followees]) + first


def _population(tag: str, source: str, people: int, edges: NDArray[np.int64], skipped: int = 0) -> Population:
    """Sorted, without repetitions and without people who follow themselves."""
    followers, followees = edges
    keys = np.unique((followees * people + followers)[followers != followees])
    left_out = skipped + followers.size - keys.size
    return Population(
        tag, source, people, (keys % people).astype(np.int32), (keys // people).astype(np.int32), skipped=left_out
    )


def read_edges(path: Path) -> Population:
    """A graph from a text file: on each line who follows whom, with white space or a comma between.

    ``#`` begins a remark. Lists as SNAP publishes them are read as they are, gzipped too (``*.gz``). Labels may be
    anything without white space.

    Raises:
        DocumentError: The file cannot be read, or a line is no edge; the message names file and line.
    """
    numbers: dict[str, int] = {}
    pairs: list[int] = []
    digest = hashlib.sha256()
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for at, line in enumerate(file, start=1):
                content = line.partition("#")[0].replace(",", " ").split()
                if not content:
                    continue
                if len(content) != 2 or max(map(len, content)) > MAX_LABEL:
                    raise DocumentError(_no_edge(path, at, content))
                digest.update(" ".join(content).encode() + b"\n")
                pairs += [numbers.setdefault(label, len(numbers)) for label in content]
                if len(pairs) > 2 * MAX_EDGES or len(numbers) > MAX_PEOPLE:
                    raise DocumentError(f"{path}:{at}: more than {MAX_EDGES:,} edges or {MAX_PEOPLE:,} people")
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise DocumentError(f"{path}: cannot be read: {error}") from error
    if not pairs:
        raise DocumentError(f"{path}: no edges: give a line 'follower followee' for each")
    edges = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return _population(digest.hexdigest()[:TAG_DIGITS], f"edges of {path.name}", len(numbers), edges)


def _no_edge(path: Path, at: int, content: Sequence[str]) -> str:
    if len(content) != 2:
        return f"{path}:{at}: edge: {len(content)} fields; allowed are two: follower followee"
    return f"{path}:{at}: edge: a label of more than {MAX_LABEL} characters"


def degrees(population: Population, planted_people: int = 0) -> Degrees:
    """Statistics of followers; the first ``planted_people`` are left out of the exponent."""
    counts = population.in_degrees()
    ranked = np.sort(counts)[::-1]
    p50, p90, p99 = (int(np.percentile(counts, percent, method="inverted_cdf")) for percent in (50, 90, 99))
    return Degrees(
        people=population.people,
        follows=int(population.followees.size),
        followed=int((counts > 0).sum()),
        mean=round(float(counts.mean()), 3),
        p50=p50,
        p90=p90,
        p99=p99,
        top=[int(count) for count in ranked[:FEW]],
        exponent=_exponent(np.sort(counts[planted_people:])[::-1]),
    )


def _exponent(ranked: NDArray[np.int64]) -> float | None:
    """Least squares over the upper tenth of those who are followed: below it, whole numbers bend the line."""
    body = ranked[ranked > 0]
    body = body[: max(FEW, body.size // 10)]
    if body.size < FEW or body[0] == body[-1]:
        return None
    slope, _ = np.polyfit(np.log(np.arange(1, body.size + 1)), np.log(body), 1)
    return round(float(slope), 2)
