"""One component: Deployment, Service, disruption budget, network policy and identity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fanfold.contracts.components import ADMIN_PORT, TRAFFIC_PORT
from fanfold.contracts.resources import PLATFORM_LABEL
from fanfold_operator import kinds
from fanfold_operator.resources import meta
from fanfold_operator.resources.pods import MOUNTS, pod_template, resources, scratch, secrets_volume

if TYPE_CHECKING:
    from fanfold.contracts.resources import PlatformServiceSpec
    from fanfold_operator.kinds import Kind, Manifest

CACHE_DIR: Final = "/var/cache/fanfold"
"""Survives a restart of the container: the gateway's last known good snapshot."""
STUCK_GRACE_SECONDS: Final = 5
LOST_NODE_SECONDS: Final = 15
"""How long a pod may stay on a node that is not heard of before another is made; Kubernetes' default is 300. Nothing in
these pods is worth waiting for, and a node comes back from a blip of the network within less."""
TOLERATIONS: Final = [
    {"key": f"node.kubernetes.io/{state}", "operator": "Exists", "effect": "NoExecute"}
    | {"tolerationSeconds": LOST_NODE_SECONDS}
    for state in ("not-ready", "unreachable")
]


class Workload:
    """Builds the objects of one PlatformService."""

    def __init__(self, owner: Manifest, spec: PlatformServiceSpec) -> None:
        self._owner = owner
        self._spec = spec
        self._name = owner["metadata"]["name"]
        self._selector = meta.selector(spec.platform, spec.component)

    def deployment(self, replicas: int) -> Manifest:
        """Rolls without a gap: a pod goes only when its successor is ready."""
        return self._build(
            kinds.DEPLOYMENT,
            replicas=replicas,
            revisionHistoryLimit=3,
            progressDeadlineSeconds=self._spec.progress_deadline_seconds,
            selector={"matchLabels": self._selector},
            strategy={"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
            template=self._pod(),
        )

    def service(self) -> Manifest:
        """The traffic port only: health and metrics are not for clients.

        A worker has nothing else: its headless Service names its pods to those who measure them.
        """
        if not self._spec.serves:
            admin = {"name": "admin", "port": ADMIN_PORT, "protocol": "TCP", "targetPort": "admin"}
            return self._build(kinds.SERVICE, clusterIP="None", selector=self._selector, ports=[admin])
        exposure = self._spec.exposure
        port: dict[str, Any] = {"name": "http", "port": TRAFFIC_PORT, "protocol": "TCP", "targetPort": "http"}
        if exposure and exposure.node_port:
            port["nodePort"] = exposure.node_port
        kind = exposure.type if exposure and exposure.type != "HTTPRoute" else "ClusterIP"
        return self._build(kinds.SERVICE, type=kind, selector=self._selector, ports=[port])

    def disruption_budget(self) -> Manifest:
        """A node drain takes one replica at a time, also where there is only one."""
        selector = {"matchLabels": self._selector}
        return self._build(kinds.DISRUPTION_BUDGET, maxUnavailable=1, selector=selector)

    def network_policy(self) -> Manifest:
        """Traffic from the platform's own pods, or from everywhere for the entry; health and metrics from pods."""
        rules: list[dict[str, Any]] = [
            {"from": [{"namespaceSelector": {}}], "ports": [{"protocol": "TCP", "port": ADMIN_PORT}]}
        ]
        if self._spec.serves:
            traffic: dict[str, Any] = {"ports": [{"protocol": "TCP", "port": TRAFFIC_PORT}]}
            if not self._spec.exposure:
                traffic["from"] = [{"podSelector": {"matchLabels": {PLATFORM_LABEL: self._spec.platform}}}]
            rules.append(traffic)
        selector = {"matchLabels": self._selector}
        return self._build(kinds.NETWORK_POLICY, podSelector=selector, policyTypes=["Ingress"], ingress=rules)

    def service_account(self) -> Manifest:
        """An identity of its own, without a token unless the component reads from the API."""
        return self._head(kinds.SERVICE_ACCOUNT, automountServiceAccountToken=False)

    def snapshot_access(self) -> list[Manifest]:
        """May read and watch one ConfigMap, nothing else."""
        api_group = kinds.ROLE.group
        role = self._head(
            kinds.ROLE,
            rules=[
                {
                    "apiGroups": [""],
                    "resources": ["configmaps"],
                    "resourceNames": [self._spec.snapshot],
                    "verbs": ["get", "list", "watch"],
                }
            ],
        )
        namespace = self._owner["metadata"]["namespace"]
        binding = self._head(
            kinds.ROLE_BINDING,
            roleRef={"apiGroup": api_group, "kind": "Role", "name": self._name},
            subjects=[{"kind": "ServiceAccount", "name": self._name, "namespace": namespace}],
        )
        return [role, binding]

    def _build(self, kind: Kind, **spec: Any) -> Manifest:
        return self._head(kind, spec=spec)

    def _head(self, kind: Kind, **body: Any) -> Manifest:
        spec = self._spec
        return meta.manifest(
            kind,
            self._owner,
            self._name,
            platform=spec.platform,
            component=spec.component,
            version=spec.version,
            **body,
        )

    def _pod(self) -> dict[str, Any]:
        spec = self._spec
        volumes = [secrets_volume(spec.secrets), scratch("1Gi")]
        if spec.snapshot:
            volumes.append({"name": "cache", "emptyDir": {"sizeLimit": "16Mi"}})
        return pod_template(
            meta.labels(spec.platform, spec.component, spec.version),
            self._container(),
            volumes,
            automountServiceAccountToken=spec.snapshot is not None,
            serviceAccountName=self._name,
            terminationGracePeriodSeconds=spec.grace_seconds,
            topologySpreadConstraints=[self._spread()],
            tolerations=TOLERATIONS,
        )

    def _spread(self) -> dict[str, Any]:
        """Where two replicas or more are asked for, they are to survive a node: two on the same would only look safe.

        Where one is enough, spreading is a wish. Nodes that are lost, cordoned or not for these pods do not count, so
        that the last node takes all; and a rollout counts its own pods only.
        """
        return {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule" if self._spec.scaling.min > 1 else "ScheduleAnyway",
            "nodeTaintsPolicy": "Honor",
            "matchLabelKeys": ["pod-template-hash"],
            "labelSelector": {"matchLabels": self._selector},
        }

    def _container(self) -> dict[str, Any]:
        spec = self._spec
        ports = [{"name": "admin", "containerPort": ADMIN_PORT, "protocol": "TCP"}]
        if spec.serves:
            ports.insert(0, {"name": "http", "containerPort": TRAFFIC_PORT, "protocol": "TCP"})
        env: list[dict[str, Any]] = [{"name": one.name, "value": one.value} for one in spec.env]
        env.append({"name": "FANFOLD_INSTANCE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})
        mounts = list(MOUNTS)
        if spec.snapshot:
            mounts.append({"name": "cache", "mountPath": CACHE_DIR})
        live = {"httpGet": {"path": "/livez", "port": "admin"}}
        ready = {"httpGet": {"path": "/readyz", "port": "admin"}}
        # Workers get no traffic, and have nothing to wait for.
        hooks = {"lifecycle": {"preStop": {"httpGet": {"path": "/drain", "port": "admin"}}}} if spec.serves else {}
        return {
            "name": spec.component,
            "image": spec.image,
            "imagePullPolicy": spec.image_pull_policy,
            "args": ["run", spec.component],
            "env": env,
            "ports": ports,
            "resources": resources(spec.resources.requests, spec.resources.limits),
            "startupProbe": {**live, "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 120},
            # A process that answers nothing is not waited for as one that leaves in order.
            "livenessProbe": {
                **live,
                "periodSeconds": 10,
                "timeoutSeconds": 5,
                "failureThreshold": 3,
                "terminationGracePeriodSeconds": STUCK_GRACE_SECONDS,
            },
            "readinessProbe": {**ready, "periodSeconds": 3, "timeoutSeconds": 3, "failureThreshold": 2},
            "volumeMounts": mounts,
            **hooks,
        }
