"""Which of several operators is the one that writes: elected by a Lease, with the semantics of client-go.

Nobody compares clocks with anybody: a candidate measures by its own clock for how long it has seen a lease unchanged.
Times in the Lease are for people. The holder counts from before it sent a renewal, others from after they saw it, and
every change of the Lease is a compare-and-swap; `Timing` says what follows.
"""

from __future__ import annotations

import asyncio
import random
import socket
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from fanfold_operator import metrics
from fanfold_operator.api import ApiError
from fanfold_operator.fencing import clock
from fanfold_operator.kinds import LEASE, Key, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from fanfold_operator.api import Api
    from fanfold_operator.fencing import Fence

log = structlog.stdlib.get_logger(__name__)

MANAGER: Final = "fanfold-election"
REST_SECONDS: Final = 5.0
"""For writes under way to end before the lease is given up. If they do not, it is not: it runs out.

Half of a lease: an API server that takes a second for each write of a Platform that is brought up is no reason to let
the next operator wait for the whole.
"""
_POD_NAMESPACE: Final = Path("/run/secrets/kubernetes.io/serviceaccount/namespace")
JITTER: Final = 1.2
"""Most that a wait is stretched by, so that candidates do not come all at once (client-go's factor)."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things last, in seconds. A successor begins at most ``lease + look * JITTER`` and two calls later.

    Attributes:
        lease: A lease unchanged for so long is free.
        renew: A holder that did not renew for so long writes no more; ``lease - renew`` is left for its last write.
        retry: Between renewals.
        look: Between looks of those who wait: also what a given-up lease waits for its successor.
        call: Most that one call may take.
    """

    lease: float = 10.0
    renew: float = 7.0
    retry: float = 2.0
    look: float = 0.75
    call: float = 3.0

    def __post_init__(self) -> None:
        if not self.lease > self.renew > self.retry * JITTER > 0:
            raise ValueError("lease must be longer than renew, and renew longer than 1.2 times retry")


@dataclass(frozen=True, slots=True)
class Election:
    """How the one that writes is found.

    Attributes:
        lease: Its Lease.
        identity: Who this process is; no other process ever has the same.
        timing: How long things last.
    """

    lease: Key
    identity: str
    timing: Timing = Timing()


def election(namespace: str | None, name: str) -> Election:
    """That of this process, by the Lease `name`; `namespace` None is the pod's, or ``default``."""
    if namespace is None:
        try:
            namespace = _POD_NAMESPACE.read_text().strip()
        except OSError:
            namespace = "default"
    # A restarted container has its predecessor's host name, but must not take its lease for its own.
    identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:12]}"
    return Election(Key(LEASE.kind, namespace, name), identity)


class Leases(Protocol):
    """One Lease in the API; errors are `ApiError`."""

    async def get(self) -> Manifest | None:
        """As it is now, None if there is none."""

    async def create(self, body: Manifest) -> Manifest:
        """Make it; 409 if it is there."""

    async def replace(self, body: Manifest) -> Manifest:
        """Change it; 409 if it is not of the body's version any more."""


class ApiLeases:
    """The Lease `key`. Its connection is its own: a renewal does not wait behind other calls, nor at their fence."""

    def __init__(self, api: Api, key: Key) -> None:
        self._api = api
        self._key = key

    async def get(self) -> Manifest | None:
        """As it is now, None if there is none."""
        try:
            return await self._api.get(self._key)
        except ApiError as error:
            if error.missing:
                return None
            raise

    async def create(self, body: Manifest) -> Manifest:
        """Make it."""
        metadata = {"name": self._key.name, "namespace": self._key.namespace}
        head = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata}
        return await self._api.create(self._key, {**body, **head}, MANAGER)

    async def replace(self, body: Manifest) -> Manifest:
        """Change it."""
        return await self._api.replace(self._key, body, MANAGER)


class Elector:
    """One candidate. Opens its `fence` while it leads."""

    def __init__(
        self,
        leases: Leases,
        identity: str,
        fence: Fence,
        timing: Timing | None = None,
        now: Callable[[], float] = clock,
    ) -> None:
        self._leases = leases
        self._identity = identity
        self._fence = fence
        self._timing = timing or Timing()
        self._now = now
        self._held: Manifest | None = None
        self._seen: dict[str, Any] | None = None
        self._seen_at = 0.0
        self._renewed = 0.0

    async def run(self, lead: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for the lease and call `lead`, which is cancelled when the lease is lost; again and again.

        Cancelled itself, or when `lead` raises, it lets writes under way end and gives the lease up.

        Raises:
            ApiError: No right to the Lease.
        """
        while True:
            await self._acquire()
            await self._term(lead)

    async def _acquire(self) -> None:
        timing = self._timing
        while not await self._tried(self._take):
            pause = timing.look * random.uniform(1.0, JITTER)  # noqa: S311 - jitter, no secret
            if self._seen is not None:
                left = self._seen_at + self._duration(self._seen) - self._now()
                pause = min(pause, left) if left > 0 else pause
            await asyncio.sleep(pause)

    async def _term(self, lead: Callable[[], Coroutine[Any, Any, None]]) -> None:
        log.info("leading", identity=self._identity)
        metrics.leader.set(1)
        work = asyncio.create_task(lead(), name="term")
        renewals = asyncio.create_task(self._renew_until_lost(), name="renewals")
        try:
            await asyncio.wait({work, renewals}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # A task of its own: within a cancelled one asyncio.timeout() ends wrongly before Python 3.11.3.
            ends = await asyncio.create_task(self._end(work, renewals))
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _end(self, work: asyncio.Task[None], renewals: asyncio.Task[None]) -> Sequence[BaseException | None]:
        """End a term; how its work and its renewals ended."""
        lost = renewals.done()
        self._fence.close()
        metrics.leader.set(0)
        rested = await self._fence.at_rest(REST_SECONDS)
        work.cancel()
        renewals.cancel()
        ends = await asyncio.gather(work, renewals, return_exceptions=True)
        if rested and not lost:
            await self._tried(self._give_up)
        self._held = None
        log.info("not_leading", identity=self._identity, lost=lost, rested=rested)
        return ends

    async def _renew_until_lost(self) -> None:
        """Returns when others may believe the lease to be free, or one has taken it."""
        timing = self._timing
        while True:
            await asyncio.sleep(timing.retry)
            while self._now() < self._renewed + timing.renew and not await self._tried(self._renew):
                if self._held is None:
                    log.warning("lease_taken", holder=(self._seen or {}).get("holderIdentity"))
                    return
                await asyncio.sleep(timing.look)
            if self._now() >= self._renewed + timing.renew:
                log.warning("lease_not_renewed", seconds=round(self._now() - self._renewed, 1))
                return

    async def _tried(self, attempt: Callable[[], Coroutine[Any, Any, bool]]) -> bool:
        """Whether it succeeded; not being reached, or another one being faster, is no error."""
        try:
            async with asyncio.timeout(self._timing.call):
                return await attempt()
        except TimeoutError:
            log.warning("lease_call_timed_out", seconds=self._timing.call)
        except ApiError as error:
            if error.status in {401, 403} and self._seen is None:
                raise  # later on, it may be an API server that has just started and knows no rights yet
            if error.status != 409:
                log.warning("lease_call_failed", error=str(error))
        return False

    async def _take(self) -> bool:
        lease = await self._leases.get()
        if lease is None:
            if self._seen is not None and not self._is_free(self._seen):
                return False  # deleted by hand: its holder may not know yet
            return await self._write(self._leases.create, {}, self._spec(None))
        spec = lease.get("spec") or {}
        if spec != self._seen:
            self._seen, self._seen_at = spec, self._now()
        if not self._is_free(spec):
            return False
        return await self._write(self._leases.replace, lease, self._spec(spec))

    async def _renew(self) -> bool:
        assert self._held is not None
        try:
            return await self._write(self._leases.replace, self._held, self._spec(self._held["spec"]))
        except ApiError as error:
            if error.status not in {404, 409}:
                raise
        # Somebody changed it. That may have been a person's label, or our own renewal whose answer was lost.
        self._held = await self._leases.get()
        self._seen, self._seen_at = (self._held or {}).get("spec"), self._now()
        if self._held is None or self._held["spec"].get("holderIdentity") != self._identity:
            self._held = None
            return False
        return await self._write(self._leases.replace, self._held, self._spec(self._held["spec"]))

    async def _give_up(self) -> bool:
        assert self._held is not None
        spec = {**self._held["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
        await self._leases.replace({**self._held, "spec": spec})
        return True

    async def _write(
        self, call: Callable[[Manifest], Coroutine[Any, Any, Manifest]], lease: Manifest, spec: Manifest
    ) -> bool:
        sent = self._now()
        self._held = await call({**lease, "spec": spec})
        self._seen, self._seen_at = self._held["spec"], self._now()
        self._renewed = sent
        self._fence.extend(sent + self._timing.renew, sent + self._timing.lease)
        return True

    def _is_free(self, spec: dict[str, Any]) -> bool:
        holder = spec.get("holderIdentity")
        return not holder or holder == self._identity or self._now() >= self._seen_at + self._duration(spec)

    def _duration(self, spec: dict[str, Any]) -> float:
        """The holder may have been told another duration than we were; the longer one is safe."""
        return max(self._timing.lease, float(spec.get("leaseDurationSeconds") or 0))

    def _spec(self, before: dict[str, Any] | None) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        known = before or {}
        mine = known.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": round(self._timing.lease),
            "acquireTime": known.get("acquireTime", now) if mine else now,
            "renewTime": now,
            "leaseTransitions": known.get("leaseTransitions", 0) + (before is not None and not mine),
        }
