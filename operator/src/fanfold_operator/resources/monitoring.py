"""An embedded Prometheus: Deployment, settings, Service and NetworkPolicy. For demonstrations and development.

It has no right in the cluster: the operator, which knows the pods anyway, names the targets over HTTP. Its rules are in
its image. Its pod does not carry the platform's label, for it is to reach metrics, not stores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import xxhash
import yaml

from fanfold.contracts.components import ADMIN_PORT
from fanfold_operator.differences import quantity
from fanfold_operator.kinds import CONFIG_MAP, DEPLOYMENT, NETWORK_POLICY, SERVICE
from fanfold_operator.resources import meta
from fanfold_operator.resources.pods import MOUNTS, pod_template, resources, scratch

if TYPE_CHECKING:
    from fanfold.contracts.resources import EmbeddedPrometheus
    from fanfold_operator.kinds import Manifest

PORT: Final = 9090
CONFIG: Final = "prometheus.yaml"
CONFIG_DIR: Final = "/etc/fanfold"
SCRAPE_SECONDS: Final = 5
"""A load test asks for rates over 15 s: three points."""
DISK: Final = "1GB"
"""Of samples; what is older goes."""


def url(platform: str) -> str:
    """Where pods of the namespace reach it."""
    return f"http://{meta.child_name(platform, meta.PROMETHEUS)}:{PORT}"


def manifests(owner: Manifest, image: str, pull_policy: str, spec: EmbeddedPrometheus, operator: str) -> list[Manifest]:
    """All its objects. `operator`: ``NAME.NAMESPACE.svc`` of the headless Service of its admin ports."""
    platform, namespace = owner["metadata"]["name"], owner["metadata"]["namespace"]
    name = meta.child_name(platform, meta.PROMETHEUS)
    selector = {"app.kubernetes.io/name": "fanfold-prometheus", "app.kubernetes.io/instance": platform}
    labels = {**selector, "app.kubernetes.io/component": meta.PROMETHEUS, "app.kubernetes.io/part-of": "fanfold"}
    settings = _settings(namespace, platform, operator)

    def build(kind: Any, **body: Any) -> Manifest:
        return meta.manifest(kind, owner, name, platform=platform, component=meta.PROMETHEUS, **body)

    port = {"name": "http", "port": PORT, "protocol": "TCP"}
    rule = {"from": [{"namespaceSelector": {}}], "ports": [{"protocol": "TCP", "port": PORT}]}
    pod = pod_template(
        labels,
        _container(image, pull_policy, spec),
        [
            {"name": "settings", "configMap": {"name": name}},
            {"name": "data", "emptyDir": {"sizeLimit": "2Gi"}},
            scratch("64Mi"),
        ],
        terminationGracePeriodSeconds=30,
    )
    # It reads its settings when it starts.
    pod["metadata"]["annotations"] = {"fanfold.dev/settings": xxhash.xxh3_64_hexdigest(settings.encode())}
    deployment = {"replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": selector}}
    return [
        build(CONFIG_MAP, data={CONFIG: settings}),
        build(SERVICE, spec={"selector": selector, "ports": [{**port, "targetPort": "http"}]}),
        build(
            NETWORK_POLICY,
            spec={"podSelector": {"matchLabels": selector}, "policyTypes": ["Ingress"], "ingress": [rule]},
        ),
        build(DEPLOYMENT, spec={**deployment, "template": pod}),
    ]


def _settings(namespace: str, platform: str, operator: str) -> str:
    targets = f"http://{operator}:{ADMIN_PORT}/targets/{namespace}/{platform}"
    jobs = [
        # The operator tells of namespaces and services that are not its own: its labels count.
        {
            "job_name": "fanfold",
            "honor_labels": True,
            "http_sd_configs": [{"url": targets, "refresh_interval": f"{SCRAPE_SECONDS}s"}],
        },
        {
            "job_name": "operator",
            "honor_labels": True,
            "dns_sd_configs": [{"names": [operator], "type": "A", "port": ADMIN_PORT}],
            "relabel_configs": [
                {"target_label": "component", "replacement": "operator"},
                {"target_label": "namespace", "replacement": operator.partition(".")[2].partition(".")[0]},
                {"source_labels": ["__address__"], "target_label": "pod"},
            ],
        },
    ]
    every = {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": "15s"}
    return yaml.safe_dump(
        {"global": every, "rule_files": ["/etc/prometheus/rules.yaml"], "scrape_configs": jobs}, sort_keys=False
    )


def _container(image: str, pull_policy: str, spec: EmbeddedPrometheus) -> dict[str, Any]:
    ready, live = ({"httpGet": {"path": f"/-/{what}", "port": "http"}} for what in ("ready", "healthy"))
    return {
        "name": meta.PROMETHEUS,
        "image": image,
        "imagePullPolicy": pull_policy,
        "args": [
            f"--config.file={CONFIG_DIR}/{CONFIG}",
            "--storage.tsdb.path=/data",
            f"--storage.tsdb.retention.time={spec.retention_hours}h",
            f"--storage.tsdb.retention.size={DISK}",
            f"--web.listen-address=:{PORT}",
        ],
        # Go's garbage collector works harder before the limit is met.
        "env": [{"name": "GOMEMLIMIT", "value": str(int(quantity(spec.max_memory)) * 4 // 5)}],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "resources": resources({"cpu": "25m", "memory": "96Mi"}, {"memory": spec.max_memory}),
        "startupProbe": {**ready, "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 120},
        "readinessProbe": {**ready, "periodSeconds": 10, "timeoutSeconds": 5},
        "livenessProbe": {**live, "periodSeconds": 15, "timeoutSeconds": 5, "failureThreshold": 4},
        "volumeMounts": [
            *(one for one in MOUNTS if one["name"] == "tmp"),
            {"name": "settings", "mountPath": CONFIG_DIR, "readOnly": True},
            {"name": "data", "mountPath": "/data"},
        ],
    }
