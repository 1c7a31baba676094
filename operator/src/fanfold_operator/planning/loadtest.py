"""A LoadTest: its Jobs, and its state from theirs. It runs once; what it came to stands in its status. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from fanfold.contracts.components import TRAFFIC_PORT
from fanfold.contracts.resources import LoadTestSpec, PlatformSpec, SecretFile, parse
from fanfold_operator.conditions import find, is_true
from fanfold_operator.kinds import JOB, Key, key_of
from fanfold_operator.planning import components, environment
from fanfold_operator.planning.actions import Actions, Images
from fanfold_operator.planning.outcome import lacks_image, ran, runs, seeds, summary_of, why_waiting
from fanfold_operator.resources import loadtest, meta, monitoring

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fanfold_operator.kinds import Manifest
    from fanfold_operator.planning.acts import Act
    from fanfold_operator.planning.outcome import Live, Summary

CANCEL_SECONDS: Final = 120
"""A run that was told to end and has not by then is ended without a report."""


class Phase(StrEnum):
    """Of a LoadTest. The last three are ends."""

    SUSPENDED = "Suspended"
    PENDING = "Pending"
    SEEDING = "Seeding"
    RUNNING = "Running"
    FINISHED = "Finished"
    CANCELLED = "Cancelled"
    FAILED = "Failed"


ENDS: Final = frozenset({Phase.FINISHED, Phase.CANCELLED, Phase.FAILED})


def ended(resource: Manifest | None) -> bool:
    """Whether a LoadTest is over."""
    return (resource or {}).get("status", {}).get("phase") in ENDS


@dataclass(frozen=True, slots=True)
class State:
    """How far a LoadTest is, and why."""

    phase: Phase
    message: str = ""
    summary: Summary | None = None
    text: str = ""
    lacks_image: bool = False


@dataclass(frozen=True)
class Run:
    """What is known of a LoadTest.

    Attributes:
        resource: The LoadTest.
        children: What it controls.
        now: The time.
        images: Where its image comes from.
        platform: The Platform it refers to, if there is one.
        pods: Of its Jobs.
        documents: Keys of the ConfigMaps it refers to; None: no such ConfigMap.
        live: Its figures, while it runs.
        acts: What was done to the Platform for it, as the record should read now.
    """

    resource: Manifest
    children: Mapping[Key, Manifest]
    now: datetime
    images: Images
    platform: Manifest | None = None
    pods: Sequence[Manifest] = ()
    documents: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    live: Live | None = None
    acts: Sequence[Act] = ()

    @cached_property
    def spec(self) -> LoadTestSpec:
        """Its spec."""
        return parse(LoadTestSpec, self.resource)

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.resource["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.resource["metadata"]["namespace"])

    @property
    def before(self) -> dict[str, Any]:
        """Its status as it stands."""
        found: dict[str, Any] = self.resource.get("status", {})
        return found

    @cached_property
    def job(self) -> Manifest | None:
        """The master's Job."""
        return self.children.get(Key(JOB.kind, self.namespace, loadtest.master_name(self.name)))

    @cached_property
    def master(self) -> Manifest | None:
        """The master's pod."""
        uid = self.job["metadata"]["uid"] if self.job else ""
        owned = [pod for pod in self.pods if _owner_uid(pod) == uid]
        return owned[0] if owned else None

    @cached_property
    def state(self) -> State:
        """How far it is."""
        if ended(self.resource):
            return State(Phase(self.before["phase"]), self.before.get("message", ""))
        if self.job is not None:
            return self._begun(self.job)
        if "startTime" in self.before:
            return State(Phase.FAILED, f"Job {loadtest.master_name(self.name)} was deleted before the run ended")
        return self._ahead()

    def _ahead(self) -> State:
        if self.spec.cancel:
            return State(Phase.CANCELLED, "cancelled before it began")
        if self.spec.suspend:
            return State(Phase.SUSPENDED, "spec.suspend is true")
        if why := self.waits:
            return self._in_time(State(Phase.PENDING, why))
        return State(Phase.PENDING, why_waiting(None))

    def _begun(self, job: Manifest) -> State:
        if is_true(job, "Complete") or is_true(job, "Failed"):
            return self._over(job)
        if ran(self.master):  # the Job tells of its end a moment after the pod
            return State(Phase(self.before.get("phase", Phase.PENDING)), "it has ended, its Job is about to say so")
        if self.spec.cancel and (given_up := self._given_up()):
            return State(Phase.CANCELLED, given_up)
        return self._under_way()

    def _under_way(self) -> State:
        if seeds(self.master):
            return State(Phase.SEEDING, "the graph is being loaded")
        if not runs(self.master):
            return State(Phase.PENDING, why_waiting(self.master), lacks_image=lacks_image(self.master))
        if self.spec.cancel:
            return State(Phase.RUNNING, "it was told to end")
        if self.live is None or self.live.progress is None:
            return State(Phase.SEEDING, "people, follows, photos and posts are being made")
        return State(Phase.RUNNING)

    def _over(self, job: Manifest) -> State:
        summary, text = summary_of(self.master)
        if summary is None:
            failed = find(job, "Failed") or {}
            said = text or failed.get("message") or "its pod is gone, and with it what it had to say"
            phase = Phase.CANCELLED if self.spec.cancel else Phase.FAILED
            return State(phase, said)
        why = "; ".join(summary.reasons)
        if summary.verdict == "broken":
            return State(Phase.CANCELLED if self.spec.cancel else Phase.FAILED, why, summary, text)
        cancelled = self.spec.cancel and summary.interrupted
        return State(Phase.CANCELLED if cancelled else Phase.FINISHED, why, summary, text)

    def _given_up(self) -> str:
        if not runs(self.master):
            return "cancelled before its pod ran"
        since = self.before.get("cancelTime")
        waited = self.now - datetime.fromisoformat(since) if since else timedelta()
        if waited >= timedelta(seconds=CANCEL_SECONDS):
            return f"cancelled; it did not end by itself within {CANCEL_SECONDS} s, there is no report"
        return ""

    @cached_property
    def waits(self) -> str:
        """What is not there yet; empty if it can begin."""
        for _, reference in loadtest.references(self.spec):
            keys = self.documents.get(reference.name)
            if keys is None:
                return f"ConfigMap {reference.name} does not exist: create it with key {reference.key}"
            if reference.key not in keys:
                there = ", ".join(sorted(keys)) or "none"
                return f"ConfigMap {reference.name} has no key {reference.key} (it has: {there})"
        if self.spec.platform_ref is None:
            return ""
        name = self.spec.platform_ref.name
        if self.platform is None:
            return f"Platform {name} does not exist in namespace {self.namespace}"
        if not is_true(self.platform, "Ready"):
            return f"Platform {name} is not Ready: {(find(self.platform, 'Ready') or {}).get('message', 'it is new')}"
        return ""

    def _in_time(self, state: State) -> State:
        since, limit = self.before.get("waitsSince"), self.spec.deadline_seconds
        if since is None or self.now - datetime.fromisoformat(since) < timedelta(seconds=limit):
            return state
        return State(Phase.FAILED, f"it could not begin within {limit} s: {state.message}")

    @property
    def waits_for_documents(self) -> bool:
        """Whether the ConfigMaps it refers to are worth a look: it has not begun."""
        return self.job is None and not ended(self.resource) and not self.spec.suspend

    @cached_property
    def builder(self) -> loadtest.Run:
        """Of its objects."""
        spec = self.spec
        image = spec.image or self.images.reference("fanfold-loadtest")
        url = f"http://{meta.child_name(spec.platform_ref.name, 'gateway')}:{TRAFFIC_PORT}" if spec.platform_ref else ""
        size = components.sized(loadtest.SIZE, spec.resources)
        return loadtest.Run(
            self.resource,
            spec,
            image,
            (spec.url or url).rstrip("/"),
            size,
            self._upload(),
            self._seeding(),
            self._prometheus(),
        )

    def _prometheus(self) -> str:
        """URL of the one that the spec names, or the Platform."""
        if self.spec.prometheus:
            return self.spec.prometheus.url.rstrip("/")
        found = parse(PlatformSpec, self.platform).monitoring.prometheus if self.platform else None
        if found and found.external:
            return found.external.url.rstrip("/")
        return monitoring.url(str(self.platform["metadata"]["name"])) if found and self.platform else ""

    def _seeding(self) -> loadtest.Seeding | None:
        if self.spec.crowd is None or self.platform is None:
            return None
        name, spec = self.platform["metadata"]["name"], parse(PlatformSpec, self.platform)
        files = tuple(components.secret_files(meta.SEED, name, spec))
        return loadtest.Seeding(files, "" if spec.database.external else name)

    def _upload(self) -> loadtest.Upload | None:
        report = self.spec.report
        folder = f"{report.prefix.strip('/')}/{self.namespace}/{self.name}/{self.resource['metadata']['uid']}"
        if report.summary_only:
            return None
        if store := report.object_store:
            reference = store.secret_ref
            keys = (("s3_access_key", reference.access_key), ("s3_secret_key", reference.secret_key))
            files = tuple(SecretFile(file=file, secret=reference.name, key=key) for file, key in keys)
            return loadtest.Upload(store.endpoint, store.region, f"s3://{store.bucket}/{folder}", files)
        if self.platform is None:
            return None
        name, spec = self.platform["metadata"]["name"], parse(PlatformSpec, self.platform)
        where = environment.object_store(name, spec)
        return loadtest.Upload(
            where["FANFOLD_S3_ENDPOINT"],
            where["FANFOLD_S3_REGION"],
            f"s3://{where['FANFOLD_S3_BUCKET']}/{folder}",
            tuple(components.secret_files(meta.LOAD_TEST, name, spec)),
            "" if spec.object_store.external else name,
        )


def plan(run: Run) -> Actions:
    """What to bring about now. A Job cannot be changed: once the master's is there, the run is what it is."""
    if run.state.phase in ENDS:
        jobs = [one for one in run.children.values() if one["kind"] == JOB.kind]
        under_way = [one for one in jobs if not is_true(one, "Complete") and not is_true(one, "Failed")]
        keep = (loadtest.summary(run.resource, run.state.text),) if run.state.summary else ()
        return Actions(keep, tuple(under_way))
    if run.job is not None or run.spec.suspend or run.waits:
        return Actions()
    missing = [one for one in run.builder.before() if one["kind"] != JOB.kind or key_of(one) not in run.children]
    return Actions((*missing, run.builder.master()))


def expires_in(run: Run) -> float | None:
    """Seconds until it is to be deleted, not positive if it is time; None: it is to stay."""
    keep, finished = run.spec.ttl_seconds_after_finished, run.before.get("finishTime")
    if keep is None or finished is None or not ended(run.resource):
        return None
    return (datetime.fromisoformat(finished) + timedelta(seconds=keep) - run.now).total_seconds()


def _owner_uid(pod: Manifest) -> str:
    return next((str(one["uid"]) for one in pod["metadata"].get("ownerReferences", ())), "")
