"""What one run of a load scenario is made of: Jobs of the load generator, their inputs, and the summary that is kept.

Its objects carry the platform's label, so that the operator watches them; its pods do not: they are clients, and reach
no more of the platform than those do. The exceptions are its object store, for those that leave a report there, and its
database, for those that begin with a graph: an init container loads it, and it alone has the URL with the password.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fanfold.contracts.components import ADMIN_PORT, TRAFFIC_PORT
from fanfold.contracts.resources import LOADTEST_LABEL, REPORTS_LABEL, SEEDS_LABEL, CrowdSpec, Resources
from fanfold_operator.kinds import CONFIG_MAP, JOB, NETWORK_POLICY, SERVICE
from fanfold_operator.resources import meta
from fanfold_operator.resources.custom import plain
from fanfold_operator.resources.pods import (
    CONTAINER_SECURITY,
    MOUNTS,
    pod_template,
    resources,
    scratch,
    secrets_volume,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fanfold.contracts.resources import ConfigMapKeyRef, LoadTestSpec, SecretFile
    from fanfold_operator.kinds import Manifest

ROLE_LABEL: Final = "fanfold.dev/loadtest-role"
MASTER: Final = "master"
WORKER: Final = "worker"
INPUT_DIR: Final = "/etc/fanfold"
SCENARIO: Final = "scenario.yaml"
SLOS: Final = "slos.yaml"
SUMMARY: Final = "summary.json"
CROWD: Final = "/tmp/crowd.json"  # noqa: S108 - in the pod, on a volume of its own
DATABASE_DIR: Final = "/run/fanfold/database"
PORTS: Final = {"admin": ADMIN_PORT, "crew": TRAFFIC_PORT}
"""Of the master; workers call, and are called by nobody."""
APP_LABELS: Final = {
    "app.kubernetes.io/name": "fanfold-loadtest",
    "app.kubernetes.io/component": meta.LOAD_TEST,
    "app.kubernetes.io/part-of": "fanfold",
}
"""By the last of these the chart's PodMonitor finds them."""
GRACE_SECONDS: Final = 60
"""From SIGTERM to SIGKILL: requests under way end, and the report is written."""
SIZE: Final = Resources(requests={"cpu": "250m", "memory": "256Mi"}, limits={"memory": "1Gi"})


@dataclass(frozen=True, slots=True)
class Upload:
    """Where a report goes.

    Attributes:
        endpoint: URL of the S3 service.
        location: ``s3://bucket/folder``.
        secrets: Its keys.
        platform: The Platform whose embedded store it is; empty: of somebody else.
    """

    endpoint: str
    region: str
    location: str
    secrets: tuple[SecretFile, ...]
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Seeding:
    """The graph to begin with.

    Attributes:
        secrets: The URL of the database, one file.
        platform: The Platform whose embedded database it is; empty: of somebody else.
    """

    secrets: tuple[SecretFile, ...]
    platform: str = ""


@dataclass(frozen=True)
class Run:
    """Builds the objects of one LoadTest.

    Attributes:
        image: Of the load generator.
        url: Base URL of the gateway.
        size: Of each pod.
        upload: None: nothing but the summary is kept.
        seeding: None: the run makes its own people.
        prometheus: URL of the one to ask, empty: none.
    """

    owner: Manifest
    spec: LoadTestSpec
    image: str
    url: str
    size: Resources = SIZE
    upload: Upload | None = field(default=None)
    seeding: Seeding | None = field(default=None)
    prometheus: str = ""

    @property
    def name(self) -> str:
        """The LoadTest's name."""
        return str(self.owner["metadata"]["name"])

    @property
    def inline(self) -> dict[str, str]:
        """Documents that stand in the spec."""
        slos = self.spec.slos.inline if self.spec.slos else None
        return {name: text for name, text in ((SCENARIO, self.spec.scenario.inline), (SLOS, slos)) if text}

    def before(self) -> list[Manifest]:
        """What the master needs, in the order in which it is to be made."""
        objects = [self._inputs()] if self.inline else []
        objects += [self._network_policy(), self._service()]
        return [*objects, self._workers()] if self.spec.workers > 1 else objects

    def master(self) -> Manifest:
        """The Job that prepares, leads and judges; with one worker it also sends the load."""
        spec = self.spec
        scenario = spec.scenario.name or f"{INPUT_DIR}/{SCENARIO}"
        args = ["pod", scenario, f"--url={self.url}", f"--profile={spec.profile}", f"--seed={spec.seed}"]
        args += [f"--rate-factor={spec.rate_factor:g}", f"--time-factor={spec.time_factor:g}"]
        args += [f"--admin=0.0.0.0:{ADMIN_PORT}"]
        if spec.acts:
            args.append("--acts")
        if spec.slos:
            args.append(f"--slos={INPUT_DIR}/{SLOS}")
        if spec.workers > 1:
            args += [f"--workers={spec.workers}", f"--crew=0.0.0.0:{TRAFFIC_PORT}"]
        if self.upload:
            upload = self.upload
            args += [f"--upload={upload.location}", f"--s3-endpoint={upload.endpoint}", f"--s3-region={upload.region}"]
        if self.seeding:
            args.append(f"--crowd={CROWD}")
        if self.prometheus:
            tested = f"{self.owner['metadata']['namespace']}/{spec.platform_ref.name}" if spec.platform_ref else ""
            args += [f"--prometheus={self.prometheus}", f"--platform={tested}"]
        reached = {REPORTS_LABEL: self.upload, SEEDS_LABEL: self.seeding}
        labels = {label: one.platform for label, one in reached.items() if one and one.platform}
        return self._job(master_name(self.name), MASTER, args, labels, self._inputs_volume())

    def _workers(self) -> Manifest:
        args = ["worker", f"--master=http://{master_name(self.name)}:{TRAFFIC_PORT}", f"--url={self.url}"]
        count = {"completionMode": "Indexed", "completions": self.spec.workers, "parallelism": self.spec.workers}
        return self._job(workers_name(self.name), WORKER, args, {}, [], **count)

    def _job(
        self,
        name: str,
        role: str,
        args: list[str],
        labels: Mapping[str, str],
        volumes: list[dict[str, Any]],
        **more: Any,
    ) -> Manifest:
        spec = self.spec
        files = self.upload.secrets if self.upload and role == MASTER else ()
        mounts = [one for one in MOUNTS if one["name"] == "tmp" or files]
        mounts += [{"name": "inputs", "mountPath": INPUT_DIR, "readOnly": True}] if volumes else []
        container = {
            "name": meta.LOAD_TEST,
            "image": self.image,
            "imagePullPolicy": spec.image_pull_policy,
            "args": args,
            "ports": [
                {"name": name, "containerPort": port, "protocol": "TCP"}
                for name, port in PORTS.items()
                if role == MASTER
            ],
            "resources": resources(self.size.requests, self.size.limits),
            "volumeMounts": mounts,
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }
        pod: dict[str, Any] = {"restartPolicy": "Never", "terminationGracePeriodSeconds": GRACE_SECONDS}
        if spec.node_selector:
            pod["nodeSelector"] = spec.node_selector
        if spec.tolerations:
            pod["tolerations"] = plain(spec.tolerations)
        if self.seeding and role == MASTER:
            pod["initContainers"] = [self._seed(self.spec.crowd or CrowdSpec())]
            database = secrets_volume(self.seeding.secrets)
            volumes = [*volumes, {**database, "name": "database"}]
        named = {**APP_LABELS, LOADTEST_LABEL: self.name, ROLE_LABEL: role, **labels}
        volumes = [*([secrets_volume(files)] if files else []), scratch("1Gi"), *volumes]
        return self._head(
            JOB,
            name,
            spec={
                "backoffLimit": 0,  # a second try would find the people and posts of the first
                "activeDeadlineSeconds": spec.deadline_seconds,
                "template": pod_template(named, container, volumes, **pod),
                **more,
            },
        )

    def _seed(self, crowd: CrowdSpec) -> dict[str, Any]:
        args = ["seed", f"--database={DATABASE_DIR}/database_url", f"--out={CROWD}", f"--seed={self.spec.seed}"]
        args += [f"--body={crowd.body}", f"--readers={crowd.readers}"]
        args += [f"--celebrity={followers}" for followers in crowd.celebrities]
        mounts = [one for one in MOUNTS if one["name"] == "tmp"]
        return {
            "name": meta.SEED,
            "image": self.image,
            "imagePullPolicy": self.spec.image_pull_policy,
            "args": args,
            "resources": resources(self.size.requests, self.size.limits),
            "volumeMounts": [*mounts, {"name": "database", "mountPath": DATABASE_DIR, "readOnly": True}],
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "securityContext": CONTAINER_SECURITY,
        }

    def _inputs(self) -> Manifest:
        return self._head(CONFIG_MAP, master_name(self.name), data=self.inline)

    def _inputs_volume(self) -> list[dict[str, Any]]:
        """A folder with the scenario and the objectives, wherever each stands."""
        sources = []
        if self.inline:
            items = [{"key": name, "path": name} for name in self.inline]
            sources.append({"configMap": {"name": master_name(self.name), "items": items}})
        for name, reference in references(self.spec):
            sources.append({"configMap": {"name": reference.name, "items": [{"key": reference.key, "path": name}]}})
        return [{"name": "inputs", "projected": {"sources": sources}}] if sources else []

    def _service(self) -> Manifest:
        """Where workers find the master, and Prometheus by its endpoints; before it is ready too."""
        return self._head(
            SERVICE,
            master_name(self.name),
            spec={
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": {LOADTEST_LABEL: self.name, ROLE_LABEL: MASTER},
                "ports": [
                    {"name": name, "port": port, "protocol": "TCP", "targetPort": name} for name, port in PORTS.items()
                ],
            },
        )

    def _network_policy(self) -> Manifest:
        """Metrics for every pod; the master's plans, which hold logins of the people it made, for its workers."""
        mine = {"matchLabels": {LOADTEST_LABEL: self.name}}
        rules = [
            {"from": [{"namespaceSelector": {}}], "ports": [{"protocol": "TCP", "port": ADMIN_PORT}]},
            {"from": [{"podSelector": mine}], "ports": [{"protocol": "TCP", "port": TRAFFIC_PORT}]},
        ]
        spec = {"podSelector": mine, "policyTypes": ["Ingress"], "ingress": rules}
        return self._head(NETWORK_POLICY, master_name(self.name), spec=spec)

    def _head(self, kind: Any, name: str, **body: Any) -> Manifest:
        return _manifest(kind, self.owner, name, **body)


def _manifest(kind: Any, owner: Manifest, name: str, **body: Any) -> Manifest:
    platform = owner["spec"].get("platformRef", {}).get("name", "")
    return meta.manifest(kind, owner, name, platform=platform, component=meta.LOAD_TEST, **body)


def summary(owner: Manifest, text: str) -> Manifest:
    """The ConfigMap that keeps what the run came to."""
    return _manifest(CONFIG_MAP, owner, report_name(owner["metadata"]["name"]), data={SUMMARY: text})


def references(spec: LoadTestSpec) -> Sequence[tuple[str, ConfigMapKeyRef]]:
    """Keys of the user's ConfigMaps, by the name of the file they become."""
    slos = spec.slos.config_map_ref if spec.slos else None
    both = ((SCENARIO, spec.scenario.config_map_ref), (SLOS, slos))
    return [(name, reference) for name, reference in both if reference]


def master_name(name: str) -> str:
    """The master's Job and Service, and the ConfigMap of inputs."""
    return f"{name}-loadtest"


def workers_name(name: str) -> str:
    """The workers' Job."""
    return f"{name}-workers"


def report_name(name: str) -> str:
    """The ConfigMap with the summary."""
    return f"{name}-report"
