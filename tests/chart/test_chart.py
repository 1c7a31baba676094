"""The chart: linted, rendered, refused with wrong values, and its manifests checked against Kubernetes' own schemas."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from fanfold.contracts.resources import PLATFORM_LABEL
from fanfold_operator import kinds
from fanfold_operator.resources.workload import TOLERATIONS
from fanfold_operator.targets import targets

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "fanfold"
Render = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def helm() -> Callable[..., subprocess.CompletedProcess[str]]:
    subprocess.run([ROOT / "tools" / "install-helm.sh"], check=True, timeout=900)
    program = str(ROOT / ".build" / "bin" / "helm")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture
def render(helm: Any) -> Render:
    def run(*settings: str) -> list[dict[str, Any]]:
        options = [word for setting in settings for word in ("--set-json", setting)]
        answer = helm("template", "fanfold", str(CHART), "--namespace", "platforms", *options)
        assert answer.returncode == 0, answer.stderr
        return [document for document in yaml.safe_load_all(answer.stdout) if document]

    return run


def of_kind(documents: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in documents if one["kind"] == kind]


def test_lint_finds_nothing(helm: Any) -> None:
    answer = helm("lint", "--strict", str(CHART))
    assert answer.returncode == 0, answer.stdout


def test_the_versions_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f'version = "{chart["appVersion"]}"' in (ROOT / "operator" / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ('workers="many"', "workers"),
        ("workers=0", "workers"),
        ('logLevel="LOUD"', "logLevel"),
        ('image={"repository":""}', "repository"),
        ('image={"repository":"registry.test/fanfold:1.0"}', "repository"),
        ("replicas=0", "replicas"),
        ('flowSchemas="yes"', "flowSchemas"),
        ("replica=3", "replica"),
        ('uninstall={"platforms":"Drop"}', "platforms"),
        ('demo={"name":"9lives"}', "name"),
    ],
)
def test_wrong_values_are_refused_with_their_name(helm: Any, setting: str, words: str) -> None:
    answer = helm("template", "fanfold", str(CHART), "--set-json", setting)
    assert answer.returncode != 0
    assert words in answer.stderr
    assert "schema" in answer.stderr


def test_the_operator_is_shut_in(render: Render) -> None:
    pod = of_kind(render(), "Deployment")[0]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = pod["containers"][0]["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert pod["containers"][0]["resources"]["limits"]["memory"]


def test_the_definitions_are_kept_at_uninstall_and_can_be_left_out(render: Render) -> None:
    definitions = of_kind(render(), "CustomResourceDefinition")
    assert len(definitions) == 4
    assert all(one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for one in definitions)
    assert of_kind(render('crds={"install":false}'), "CustomResourceDefinition") == []


def allowed(rules: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_rights_are_those_of_the_kinds_the_operator_uses(render: Render) -> None:
    rights = allowed(of_kind(render(), "ClusterRole")[0]["rules"])
    known = {(kind.group, kind.plural) for kind in kinds.ALL}
    assert {(group, resource.partition("/")[0]) for group, resource, _ in rights} == known
    for kind in kinds.WATCHED:
        assert {(kind.group, kind.plural, verb) for verb in ("list", "watch")} <= rights
    assert not [right for right in rights if "*" in right]
    secrets = {verb for group, resource, verb in rights if (group, resource) == ("", "secrets")}
    assert secrets == {"get", "create", "patch"}, "no listing of anybody's Secrets"
    assert not {verb for _, resource, verb in rights if resource == "platforms"} & {"create", "patch", "delete"}


def test_in_one_namespace_it_has_rights_there_only(render: Render) -> None:
    wide, narrow = render(), render("namespaced=true")
    assert of_kind(narrow, "ClusterRole") == of_kind(narrow, "ClusterRoleBinding") == []
    role, lease = of_kind(narrow, "Role")
    assert lease == of_kind(wide, "Role")[0]
    assert role["metadata"]["namespace"] == "platforms"
    assert role["rules"] == of_kind(wide, "ClusterRole")[0]["rules"]
    assert (
        "--namespace=platforms" in of_kind(narrow, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"]
    )


def test_it_may_change_one_lease_and_no_other(render: Render) -> None:
    deployment = of_kind(render(), "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]
    env = {one["name"]: one["value"] for one in deployment["env"]}
    role = of_kind(render(), "Role")[0]
    assert role["metadata"]["namespace"] == env["FANFOLD_OPERATOR_LEASE_NAMESPACE"] == "platforms"
    create, change = role["rules"]
    assert (create["resources"], create["verbs"]) == (["leases"], ["create"])
    assert change["resourceNames"] == [env["FANFOLD_OPERATOR_LEASE_NAME"]]
    assert set(change["verbs"]) == {"get", "update"}


def test_a_replica_takes_over_where_the_first_one_is_not(render: Render) -> None:
    spec = of_kind(render(), "Deployment")[0]["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    selector = spec["selector"]["matchLabels"]
    spread = spec["template"]["spec"]["topologySpreadConstraints"][0]
    assert (spread["topologyKey"], spread["labelSelector"]["matchLabels"]) == ("kubernetes.io/hostname", selector)
    assert spread["matchLabelKeys"] == ["pod-template-hash"], "else a rollout may end with both on one node"
    assert spec["template"]["spec"]["tolerations"] == TOLERATIONS
    own = {"key": "infra", "operator": "Exists"}
    more = of_kind(render('tolerations=[{"key":"infra","operator":"Exists"}]'), "Deployment")[0]["spec"]
    assert more["template"]["spec"]["tolerations"] == [*TOLERATIONS, own]
    budget = of_kind(render(), "PodDisruptionBudget")[0]["spec"]
    assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": selector}}
    assert of_kind(render("replicas=1"), "PodDisruptionBudget") == []


def test_the_api_server_keeps_seats_for_it_unless_told_not_to(render: Render) -> None:
    work, lease = of_kind(render(), "FlowSchema")
    account = {"name": "fanfold-operator", "namespace": "platforms"}
    for schema in (work, lease):
        (rule,) = schema["spec"]["rules"]
        assert rule["subjects"] == [{"kind": "ServiceAccount", "serviceAccount": account}]
    assert work["spec"]["priorityLevelConfiguration"]["name"] == "workload-high"
    assert lease["spec"]["priorityLevelConfiguration"]["name"] == "leader-election"
    assert lease["spec"]["matchingPrecedence"] < work["spec"]["matchingPrecedence"] < 9000
    assert of_kind(render("flowSchemas=false"), "FlowSchema") == []
    assert of_kind(render("namespaced=true"), "FlowSchema") == []


@pytest.mark.parametrize(("settings", "kind"), [((), "ClusterRole"), (("namespaced=true",), "Role")])
def test_platforms_are_deleted_at_uninstall_only_if_asked_and_only_then_may_somebody(
    render: Render, settings: tuple[str, ...], kind: str
) -> None:
    def hooks(*more: str) -> list[dict[str, Any]]:
        documents = render(*settings, *more)
        return [one for one in documents if one["metadata"].get("annotations", {}).get("helm.sh/hook") == "pre-delete"]

    assert hooks() == []
    account, role, binding, job = hooks('uninstall={"platforms":"Delete"}')
    assert [one["kind"] for one in (account, role, binding, job)] == ["ServiceAccount", kind, f"{kind}Binding", "Job"]
    assert allowed(role["rules"]) == {("fanfold.dev", "platforms", verb) for verb in ("list", "delete")}
    for one in (account, role, binding, job):
        assert one["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    assert binding["subjects"][0]["name"] == account["metadata"]["name"]
    template = job["spec"]["template"]
    selector = of_kind(render(), "Deployment")[0]["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= template["metadata"]["labels"].items(), "budgets and spreading do not count it"
    where = "--namespace=platforms" if kind == "Role" else "--all-namespaces"
    assert template["spec"]["containers"][0]["args"] == ["delete-platforms", where, "--seconds=240"]
    assert job["spec"]["activeDeadlineSeconds"] > 240


def test_images_come_from_the_repository_named(render: Render) -> None:
    container = of_kind(render('image={"repository":"registry.test:5000/photos","tag":"1.2.3"}'), "Deployment")[0][
        "spec"
    ]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.test:5000/photos/fanfold-operator:1.2.3"
    env = {one["name"]: one["value"] for one in container["env"]}
    assert env["FANFOLD_OPERATOR_IMAGE_PREFIX"] == "registry.test:5000/photos"
    assert env["FANFOLD_OPERATOR_IMAGE_VERSION"] == "1.2.3"


def test_a_canary_sings_to_the_demo_platform_when_it_is_asked_for(render: Render) -> None:
    def canaries(demo: str) -> list[dict[str, Any]]:
        return [one for one in of_kind(render(demo), "Deployment") if one["metadata"]["name"].endswith("-canary")]

    assert canaries('demo={"enabled":true}') == []
    assert canaries('demo={"canary":true}') == []
    (canary,) = canaries('demo={"enabled":true,"name":"shop","canary":true}')
    template = canary["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert "--url=http://shop-gateway:8000" in container["args"]
    assert container["image"].rpartition(":")[0].endswith("/fanfold-loadtest")
    assert canary["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert template["metadata"]["labels"]["app.kubernetes.io/part-of"] == "fanfold"  # a PodMonitor finds it by that
    assert [port["name"] for port in container["ports"]] == ["admin"]


def test_the_operator_names_the_canary_to_an_embedded_prometheus(render: Render) -> None:
    made = render('demo={"enabled":true,"name":"shop","canary":true}')
    (service,) = (one for one in of_kind(made, "Service") if one["metadata"]["name"] == "shop-canary")
    (canary,) = (one for one in of_kind(made, "Deployment") if one["metadata"]["name"] == "shop-canary")
    labels, template = service["metadata"]["labels"], canary["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert "fanfold.dev/platform" not in template["metadata"]["labels"], "stores let in what carries it"
    # Kubernetes gives the slices of a Service its labels.
    endpoint = {"addresses": ["10.0.0.7"], "targetRef": {"kind": "Pod", "name": "shop-canary-x"}}
    (found,) = targets([{"metadata": {"labels": labels}, "endpoints": [endpoint]}], "prod", labels[PLATFORM_LABEL])
    assert found["targets"] == ["10.0.0.7:9000"]
    assert (found["labels"]["component"], found["labels"]["platform"]) == ("canary", "shop")
    (port,) = template["spec"]["containers"][0]["ports"]
    assert port["containerPort"] == 9000


def test_a_demo_platform_is_made_after_the_definitions_and_once(render: Render) -> None:
    assert of_kind(render(), "Platform") == []
    demo = of_kind(render('demo={"enabled":true,"spec":{"feed":{"length":30}}}'), "Platform")[0]
    assert demo["spec"] == {"feed": {"length": 30}}
    assert demo["metadata"]["annotations"]["helm.sh/hook"] == "post-install"


def test_the_operator_command_knows_every_option_the_chart_sets(render: Render) -> None:
    env = {
        one["name"] for one in of_kind(render(), "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    text = (ROOT / "operator" / "src" / "fanfold_operator" / "cli.py").read_text()
    assert not [name for name in env if f'"{name.removeprefix("FANFOLD_OPERATOR_")}"' not in text]


@pytest.fixture(scope="session")
def api_schemas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], dict[str, Any]]]:
    """Kubernetes' own OpenAPI schemas, asked of a kube-apiserver."""
    folder = tmp_path_factory.mktemp("schemas")
    arguments = [
        str(ROOT / ".build" / "bin" / "fanfold-cluster"),
        "control-plane",
        "run",
        "--state",
        str(folder / "state"),
    ]
    kubectl = shutil.which("kubectl", path=str(ROOT / ".build" / "bin"))
    assert kubectl, "run cluster/build.sh"
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        kubeconfig = server.stdout.readline().strip().removeprefix("READY kubeconfig=")

        def fetch(path: str) -> dict[str, Any]:
            command = [kubectl, "--kubeconfig", kubeconfig, "get", "--raw", path]
            answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
            found: dict[str, Any] = json.loads(answer.stdout)
            return found

        def schema(api_version: str, kind: str) -> dict[str, Any]:
            group, _, version = api_version.rpartition("/")
            document = fetch(f"/openapi/v3/apis/{api_version}" if group else f"/openapi/v3/api/{version}")
            name = next(
                name
                for name, one in document["components"]["schemas"].items()
                for gvk in one.get("x-kubernetes-group-version-kind", ())
                if (gvk["group"], gvk["version"], gvk["kind"]) == (group, version, kind) and name.endswith(f".{kind}")
            )
            return {"$ref": f"#/components/schemas/{name}", "components": _closed(document["components"])}

        yield schema
        server.terminate()
        server.wait(30)


def _closed(node: Any) -> Any:
    """Refuse fields that a schema does not name, as strict field validation does."""
    if isinstance(node, list):
        return [_closed(one) for one in node]
    if not isinstance(node, dict):
        return node
    closed = {name: _closed(one) for name, one in node.items() if name != "nullable"}
    if (
        "properties" in node
        and "additionalProperties" not in node
        and "x-kubernetes-preserve-unknown-fields" not in node
    ):
        closed["additionalProperties"] = False
    return closed


@pytest.mark.timeout(180)
def test_what_it_renders_is_what_kubernetes_knows(render: Render, api_schemas: Any) -> None:
    documents = render(
        'demo={"enabled":true,"canary":true}', 'imagePullSecrets=[{"name":"x"}]', 'nodeSelector={"a":"b"}',
        'uninstall={"platforms":"Delete"}',
    )  # fmt: skip
    checked = [one for one in documents if one["kind"] not in {"CustomResourceDefinition", "Platform"}]
    for document in checked:
        jsonschema.validate(document, api_schemas(document["apiVersion"], document["kind"]))
    assert {one["kind"] for one in checked} == {
        "Service", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Deployment",
        "NetworkPolicy", "PodDisruptionBudget", "FlowSchema", "Job",
    }  # fmt: skip
    wrong = json.loads(json.dumps(of_kind(documents, "Deployment")[0]))
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Always"
    with pytest.raises(jsonschema.ValidationError, match="imagePolicy"):
        jsonschema.validate(wrong, api_schemas("apps/v1", "Deployment"))
