"""A bare kube-apiserver without nodes, and the controllers that are played on it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from fanfold.contracts.resources import PLATFORM_LABEL, SERVICE_LABEL

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / ".build" / "bin" / "fanfold-cluster"
CONCURRENCY = 24
PLAY_SECONDS = 1.5
Manifest = dict[str, Any]


@contextlib.contextmanager
def api_server(folder: Path) -> Iterator[Path]:
    words = [str(BINARY), "control-plane", "run", "--state", str(folder / "state")]
    with (folder / "control-plane.log").open("w") as errors:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            assert process.stdout
            line = process.stdout.readline().strip()
            if not line.startswith("READY kubeconfig="):
                raise SystemExit(f"no control plane: {(folder / 'control-plane.log').read_text()[-2000:]}")
            yield Path(line.partition("=")[2])
        finally:
            process.terminate()
            process.wait(30)


class Kube:
    """A client of it."""

    def __init__(self, kubeconfig: Path) -> None:
        loaded = yaml.safe_load(kubeconfig.read_text())
        cluster, user = loaded["clusters"][0]["cluster"], loaded["users"][0]["user"]
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile() as file:
            for name in ("client-certificate-data", "client-key-data"):
                file.write(base64.b64decode(user[name]))
            file.flush()
            context.load_cert_chain(file.name)
        limits = httpx.Limits(max_connections=CONCURRENCY)
        self._client = httpx.AsyncClient(
            base_url=cluster["server"], verify=context, timeout=60, trust_env=False, limits=limits
        )
        self._turns = asyncio.Semaphore(CONCURRENCY)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def call(self, method: str, path: str, body: Any = None, content: str = "application/json") -> Manifest:
        async with self._turns:
            answer = await self._client.request(method, path, json=body, headers={"Content-Type": content})
        if answer.status_code == 409 and method == "POST":
            return {}
        if answer.status_code >= 300:
            raise SystemExit(f"{method} {path}: {answer.text}")
        document: Manifest = answer.json()
        return document

    async def define(self) -> None:
        """Create our definitions, and wait until they are served."""
        for file in sorted((ROOT / "crds").glob("*.yaml")):
            definition = yaml.safe_load(file.read_text())
            await self.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
            path = f"/apis/fanfold.dev/v1alpha1/{definition['spec']['names']['plural']}"
            deadline = time.monotonic() + 30
            while (await self._client.get(path)).status_code != 200:
                if time.monotonic() > deadline:
                    raise SystemExit(f"{path} is not served")
                await asyncio.sleep(0.1)


@dataclass(frozen=True)
class _Played:
    """One kind whose controller is played: where it is listed, and the status it is to have (None: it has it)."""

    path: str
    status: Any


class Controllers:
    """Writes what the controllers of Kubernetes would: statuses, and EndpointSlices of one ready pod each."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._sliced: set[str] = set()

    async def play_forever(self) -> None:
        while True:
            began = time.monotonic()
            for played in PLAYED:
                listing = await self._kube.call(
                    "GET", f"{played.path}?labelSelector={PLATFORM_LABEL}&resourceVersion=0"
                )
                await asyncio.gather(*(self._settle(played, item) for item in listing["items"]))
            services = await self._kube.call(
                "GET", f"/api/v1/services?labelSelector={PLATFORM_LABEL}&resourceVersion=0"
            )
            await asyncio.gather(*(self._slice(item) for item in services["items"]))
            await asyncio.sleep(max(PLAY_SECONDS, 2 * (time.monotonic() - began)))

    async def _settle(self, played: _Played, item: Manifest) -> None:
        status = played.status(item)
        if status is not None:
            metadata = item["metadata"]
            base, _, plural = played.path.rpartition("/")
            path = f"{base}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}/status"
            await self._kube.call("PATCH", path, {"status": status}, "application/merge-patch+json")

    async def _slice(self, service: Manifest) -> None:
        metadata, labels = service["metadata"], service["metadata"]["labels"]
        if metadata["uid"] in self._sliced or SERVICE_LABEL not in labels:
            return
        self._sliced.add(metadata["uid"])
        number = len(self._sliced)
        address = f"10.{64 + number // 65000}.{number // 250 % 256}.{number % 250 + 1}"
        body = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{metadata['name']}-play",
                "labels": {**labels, "kubernetes.io/service-name": metadata["name"]},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8000}],
            "endpoints": [
                {
                    "addresses": [address],
                    "conditions": {"ready": True, "serving": True, "terminating": False},
                    "targetRef": {"kind": "Pod", "name": f"{metadata['name']}-x", "namespace": metadata["namespace"]},
                }
            ],
        }
        path = f"/apis/discovery.k8s.io/v1/namespaces/{metadata['namespace']}/endpointslices"
        await self._kube.call("POST", path, body)


def _deployment(item: Manifest) -> Manifest | None:
    replicas, generation = item["spec"].get("replicas", 1), item["metadata"]["generation"]
    if item.get("status", {}).get("observedGeneration") == generation:
        return None
    counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    return {"observedGeneration": generation, **dict.fromkeys(counts, replicas)}


def _stateful_set(item: Manifest) -> Manifest | None:
    found = _deployment(item)
    return found and {**found, "currentReplicas": found["replicas"]}


def _job(item: Manifest) -> Manifest | None:
    if item.get("status", {}).get("conditions"):
        return None
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = [
        {"type": kind, "status": "True", "lastProbeTime": now, "lastTransitionTime": now}
        for kind in ("SuccessCriteriaMet", "Complete")
    ]
    return {"startTime": now, "completionTime": now, "succeeded": 1, "conditions": conditions}


PLAYED = (
    _Played("/apis/apps/v1/statefulsets", _stateful_set),
    _Played("/apis/batch/v1/jobs", _job),
    _Played("/apis/apps/v1/deployments", _deployment),
)
