"""The snapshot in force: what may replace it, and the copy on disk that a restart begins with.

`judge` decides, `SnapshotKeeper` carries out. Sources (`fanfold.gateway.sources`) only deliver bytes.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from fanfold.contracts.snapshot import Snapshot, SnapshotError, decode
from fanfold.kit.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from fanfold.gateway.metrics import GatewayStats

log = get_logger(__name__)

FILE_NAME: Final = "snapshot.json"
ABSURD_FROM: Final = 3
"""A service of more slots than this may not lose over half of them at once, without confirmation."""


class Verdict(Enum):
    """What becomes of a snapshot that arrived."""

    APPLY = "applied"
    SAME = "same"
    STALE = "stale"
    CONFLICT = "conflict"
    ABSURD = "held"
    CORRUPT = "corrupt"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and, unless all is well, its reason."""

    verdict: Verdict
    reason: str = ""


def judge(current: Snapshot | None, offered: Snapshot) -> Judgement:
    """Whether ``offered`` may replace ``current``. ``ABSURD`` may, once it has lasted."""
    if current is None:
        return Judgement(Verdict.APPLY)
    if offered.checksum == current.checksum:
        return Judgement(Verdict.SAME)
    if offered.platform != current.platform:
        return Judgement(Verdict.CONFLICT, f"it is of platform {offered.platform}, not {current.platform}")
    if offered.epoch < current.epoch:
        return Judgement(Verdict.STALE, f"its epoch {offered.epoch} is before {current.epoch}")
    if offered.epoch == current.epoch:
        return Judgement(Verdict.CONFLICT, f"epoch {offered.epoch} came with two contents")
    absurd = _absurdity(current, offered)
    return Judgement(Verdict.ABSURD if absurd else Verdict.APPLY, absurd)


def _absurdity(current: Snapshot, offered: Snapshot) -> str:
    """What looks like a mistake of the writer rather than like a change; empty when nothing does."""
    for service, slots in current.services.items():
        left = len(offered.services.get(service, ()))
        if (slots and not left) or (len(slots) > ABSURD_FROM and left * 2 < len(slots)):
            return f"{service} has {left} slots left of {len(slots)}"
    return ""


class SnapshotKeeper:
    """Holds the snapshot in force.

    Args:
        apply: Called with each new snapshot, before it is in force.
        stats: Counts verdicts.
        folder: For the last known good; None keeps none.
        confirm_seconds: How long an absurd snapshot must last.
    """

    def __init__(
        self,
        apply: Callable[[Snapshot], Awaitable[None]],
        stats: GatewayStats,
        folder: Path | None,
        confirm_seconds: float,
    ) -> None:
        self.current: Snapshot | None = None
        self.source = ""
        self.held = ""
        """Why the newest snapshot is not in force; empty when it is."""
        self._apply = apply
        self._stats = stats
        self._path = folder / FILE_NAME if folder is not None else None
        self._confirm_seconds = confirm_seconds
        self._seen = 0.0
        self._absurd_since: float | None = None
        self._lock = asyncio.Lock()

    @property
    def age_seconds(self) -> float:
        """Since a source last said that what is in force still holds; before any did, infinite."""
        return time.monotonic() - self._seen if self._seen else float("inf")

    @property
    def confirmed(self) -> bool:
        """A source, not only the disk, has said that what is in force holds."""
        return self._seen > 0

    async def load(self) -> None:
        """Begin with the copy on disk, if there is a sound one."""
        if self._path is None or not self._path.exists():
            return
        try:
            snapshot = decode(self._path.read_bytes())
        except (OSError, SnapshotError) as error:
            log.error("snapshot_copy_unusable", path=str(self._path), error=str(error))  # noqa: TRY400 - no bug of ours
            return
        await self._apply(snapshot)
        self.current, self.source = snapshot, "disk"
        log.info("snapshot_from_disk", epoch=snapshot.epoch, platform=snapshot.platform)

    async def offer(self, data: bytes | str, source: str) -> Verdict:
        """Take, hold or refuse one delivery of a source."""
        async with self._lock:
            try:
                snapshot = decode(data)
            except SnapshotError as error:
                judgement = Judgement(Verdict.CORRUPT, str(error))
            else:
                judgement = await self._consider(snapshot, data, source)
            self._report(judgement, source)
            return judgement.verdict

    async def _consider(self, snapshot: Snapshot, data: bytes | str, source: str) -> Judgement:
        judgement = judge(self.current, snapshot)
        if judgement.verdict is Verdict.ABSURD and self._lasted():
            judgement = Judgement(Verdict.APPLY, f"believed after {self._confirm_seconds} s: {judgement.reason}")
        if judgement.verdict is Verdict.APPLY:
            await self._apply(snapshot)
            self.current = snapshot
        if judgement.verdict in (Verdict.APPLY, Verdict.SAME):
            self._absurd_since = None
            self._seen = time.monotonic()
            self.source = source
        if judgement.verdict is Verdict.APPLY:
            await asyncio.to_thread(self._save, data)  # a sync takes as long as the disk likes
        return judgement

    def _lasted(self) -> bool:
        """The source has said something absurd, and nothing else, for long enough."""
        now = time.monotonic()
        if self._absurd_since is None:
            self._absurd_since = now
        return now - self._absurd_since >= self._confirm_seconds

    def _report(self, judgement: Judgement, source: str) -> None:
        verdict = judgement.verdict
        self._stats.snapshots[verdict.value] = self._stats.snapshots.get(verdict.value, 0) + 1
        if verdict is Verdict.SAME:
            self.held = ""
            return
        if verdict is Verdict.APPLY:
            self.held = ""
            assert self.current is not None
            log.info("snapshot_applied", epoch=self.current.epoch, source=source, note=judgement.reason)
        elif judgement.reason != self.held:
            self.held = judgement.reason
            log.error("snapshot_held_back", verdict=verdict.value, reason=judgement.reason, source=source)

    def _save(self, data: bytes | str) -> None:
        """Keep what came, to the byte: it may hold more than this version understands.

        Write, sync, rename: a crash leaves the old copy or the new one.
        """
        if self._path is None:
            return
        partial = self._path.with_suffix(".partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            log.error("snapshot_not_saved", path=str(self._path), error=str(error))  # noqa: TRY400 - no bug of ours
