"""Reads Prometheus text from pods' admin ports: bounded in time, size and number of connections.

What comes back is a value, `Scrape` per target; decisions on it need no network.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

TIMEOUT_SECONDS: Final = 2.0
"""For one target, all included. A pod that takes longer to say how it fares counts as one that does not say."""
LIMIT_BYTES: Final = 4 * 2**20
CONCURRENCY: Final = 16


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: its full name (``..._total``, ``..._bucket``), labels and value."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one target said; `error` says why it said nothing.

    Attributes:
        target: ``host:port``.
        samples: In the order of the text.
        error: None if it answered.
    """

    target: str
    samples: tuple[Sample, ...] = ()
    error: str | None = None

    def select(self, name: str, **labels: str) -> list[Sample]:
        """Samples of this name that carry these labels, and perhaps more."""
        wanted = labels.items()
        return [one for one in self.samples if one.name == name and wanted <= one.labels.items()]

    def total(self, name: str, **labels: str) -> float | None:
        """Sum of `select`; None if there is no such sample, which is not the same as 0."""
        found = self.select(name, **labels)
        return sum(one.value for one in found) if found else None

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Sums of `select` by the value of one more label, as PromQL's ``sum by``."""
        sums: dict[str, float] = {}
        for one in self.select(name, **labels):
            value = one.labels.get(label, "")
            sums[value] = sums.get(value, 0.0) + one.value
        return sums


def parse(text: str, names: Collection[str] | None = None) -> tuple[Sample, ...]:
    """Samples of Prometheus text; with `names` only those, and only they are parsed, which is most of the cost.

    Raises:
        ValueError: Not Prometheus text.
    """
    if names is not None:
        wanted = frozenset(names)
        text = "".join(line for line in text.splitlines(keepends=True) if _name(line) in wanted)
    families = text_string_to_metric_families(text)
    return tuple(Sample(one.name, one.labels, float(one.value)) for family in families for one in family.samples)


def _name(line: str) -> str:
    return line.partition("{")[0].partition(" ")[0]


class Scraper:
    """Asks targets for ``/metrics``. Use one for long: connections are kept."""

    def __init__(self, timeout_seconds: float = TIMEOUT_SECONDS, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        self._turns = asyncio.Semaphore(CONCURRENCY)
        # Not through a proxy: pods are in the cluster.
        timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        # Uncompressed: the limit of size then bounds the work too.
        headers = {"Accept": "text/plain", "Accept-Encoding": "identity"}
        self._session = aiohttp.ClientSession(timeout=timeout, headers=headers, trust_env=False, auto_decompress=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def scrape(self, targets: Iterable[str], names: Collection[str] | None = None) -> list[Scrape]:
        """One `Scrape` per target (``host:port``), in their order; never raises for what a target does."""
        return await asyncio.gather(*(self._scrape(target, names) for target in targets))

    async def _scrape(self, target: str, names: Collection[str] | None) -> Scrape:
        async with self._turns:
            try:
                return Scrape(target, parse(await self._read(target), names))
            except TimeoutError:
                return Scrape(target, error=f"no answer within {self._session.timeout.total:g} s")
            except (aiohttp.ClientError, OSError, ValueError) as error:
                return Scrape(target, error=f"{type(error).__name__}: {error}")

    async def _read(self, target: str) -> str:
        async with self._session.get(f"http://{target}/metrics", allow_redirects=False) as response:
            if response.status != 200:
                raise ValueError(f"/metrics answered {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > self._limit:
                    raise ValueError(f"/metrics is larger than {self._limit} bytes")
            return body.decode()
