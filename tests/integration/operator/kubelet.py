"""The node of a cluster that has none."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from fanfold.contracts.components import MIGRATION_REFUSED
from fanfold.contracts.resources import LOADTEST_LABEL, SERVICE_LABEL
from tests.integration.operator.kube import Kube, Manifest

TICK_SECONDS = 0.1
WATCH_SECONDS = 3
"""How long one watch lasts, and so what an end of the tests waits for it at most."""


class Kubelet:
    """Plays the node: binds pods, reports them as ready, or a Job's as done, and removes them a second after deletion.

    `hold` leaves pods of a component pending, `refuse` ends them with the exit code of migrations that refuse. Pods of
    load tests run until `end`. A call that is not answered in time, or refused for now, is made again.
    """

    NODE = "test-node"
    ADDRESS = "192.0.2.7"

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._addresses = (f"10.{a}.{b}.{c}" for a in range(64, 128) for b in range(256) for c in range(1, 255))
        self._held: set[tuple[str, str | None]] = set()
        self._refusing: set[tuple[str, str]] = set()
        self._ends: dict[tuple[str, str], tuple[int, str]] = {}
        self._pods: dict[str, Manifest] = {}
        self._done: set[tuple[str, str]] = set()
        """What was done to which pod: what the watch tells may be older."""
        self._news = threading.Event()
        self._stop = threading.Event()
        self._renewed = 0.0

    def end(self, namespace: str, load_test: str, code: int, words: str) -> None:
        """End the pods of this load test, once they run, with this exit code and termination message."""
        self._ends[namespace, load_test] = code, words

    def hold(self, namespace: str, component: str | None) -> None:
        self._held.add((namespace, component))

    def release(self, namespace: str, component: str) -> None:
        self._held.discard((namespace, component))

    def refuse(self, namespace: str, component: str) -> None:
        self._refusing.add((namespace, component))

    def run(self) -> None:
        conditions = [{"type": "Ready", "status": "True"}]
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.NODE},
            "status": {"conditions": conditions},
        }
        self._kube.call("POST", "/api/v1/nodes", node)
        watch = threading.Thread(target=self._watch, name="kubelet-watch")
        watch.start()
        while not self._stop.is_set():
            self._news.wait(TICK_SECONDS)
            self._news.clear()
            try:
                if time.monotonic() - self._renewed > 5:
                    self._heartbeat()
                for pod in list(self._pods.values()):
                    self._attend(pod)
            except httpx.TransportError:
                continue  # the API server was too busy to answer
        watch.join()

    def stop(self) -> None:
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                listed = self._kube.client.get("/api/v1/pods").raise_for_status().json()
                self._pods = {pod["metadata"]["uid"]: pod for pod in listed["items"]}
                self._news.set()
                self._follow(listed["metadata"]["resourceVersion"])
            except httpx.HTTPError:
                self._stop.wait(TICK_SECONDS)

    def _follow(self, version: str) -> None:
        query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(WATCH_SECONDS)}
        with self._kube.client.stream("GET", "/api/v1/pods", params=query) as answer:
            for line in answer.iter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                pod = event["object"]
                if event["type"] == "DELETED":
                    self._pods.pop(pod["metadata"]["uid"], None)
                else:
                    self._pods[pod["metadata"]["uid"]] = pod
                self._news.set()

    def _heartbeat(self) -> None:
        """The node lifecycle controller evicts the pods of a node that does not renew its Lease."""
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.NODE},
            "spec": {"holderIdentity": self.NODE, "leaseDurationSeconds": 40, "renewTime": now},
        }
        path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{self.NODE}"
        if self._send("PATCH", path, lease, "application/apply-patch+yaml", fieldManager="kubelet"):
            self._renewed = time.monotonic()

    def _attend(self, pod: Manifest) -> None:
        metadata, phase = pod["metadata"], pod["status"]["phase"]
        place, component = metadata["namespace"], metadata.get("labels", {}).get(SERVICE_LABEL)
        end = self._ends.get((place, metadata.get("labels", {}).get(LOADTEST_LABEL)))
        if "deletionTimestamp" in metadata:
            if _deleted_for(metadata) > timedelta(seconds=1):
                self._once("removed", pod, self._remove)
        elif phase == "Pending" and (place, component) not in self._held:
            self._once("started", pod, self._start)
        elif phase == "Running" and end:
            self._once("ended", pod, lambda path, _: self._end(path, *end))

    def _once(self, what: str, pod: Manifest, act: Any) -> None:
        mark = what, pod["metadata"]["uid"]
        path = self._kube.path("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
        if mark not in self._done and act(path, pod["metadata"]):
            self._done.add(mark)

    def _remove(self, path: str, _: Manifest) -> bool:
        return self._send("DELETE", path, {"gracePeriodSeconds": 0})

    def _start(self, path: str, metadata: Manifest) -> bool:
        target, labels = {"apiVersion": "v1", "kind": "Node", "name": self.NODE}, metadata.get("labels", {})
        if not self._send("POST", path + "/binding", {"metadata": {"name": metadata["name"]}, "target": target}):
            return False
        if LOADTEST_LABEL in labels:
            return self._report(path, done=False, state={"running": {}})
        if (metadata["namespace"], labels.get(SERVICE_LABEL)) in self._refusing:
            ended = {"name": "migrate", "state": {"terminated": {"exitCode": MIGRATION_REFUSED}}}
            return self._tell(path, {"phase": "Failed", "containerStatuses": [ended]})
        return self._report(path, done="batch.kubernetes.io/job-name" in labels)

    def _end(self, path: str, code: int, words: str) -> bool:
        ended = {"name": "loadtest", "state": {"terminated": {"exitCode": code, "message": words}}}
        return self._tell(path, {"phase": "Failed" if code else "Succeeded", "containerStatuses": [ended]})

    def _report(self, path: str, *, done: bool, state: Manifest | None = None) -> bool:
        ready = [{"type": "Ready", "status": "True"}]
        status: dict[str, Any] = {"phase": "Succeeded"} if done else {"phase": "Running", "conditions": ready}
        if state:
            status["containerStatuses"] = [{"name": "loadtest", "state": state}]
        address = next(self._addresses)
        hosts = {"hostIP": self.ADDRESS, "hostIPs": [{"ip": self.ADDRESS}]}
        return self._tell(path, status | hosts | {"podIP": address, "podIPs": [{"ip": address}]})

    def _tell(self, path: str, status: Manifest) -> bool:
        return self._send("PATCH", path + "/status", {"status": status})

    def _send(self, method: str, path: str, body: Any, content: str = "", **query: str) -> bool:
        """Whether it was done, or cannot be: a pod may be gone or bound by now, its namespace about to go."""
        kind = content or ("application/merge-patch+json" if method == "PATCH" else "application/json")
        answer = self._kube.client.request(method, path, json=body, params=query, headers={"Content-Type": kind})
        if answer.status_code >= 500 or answer.status_code == 429:
            return False
        overtaken = answer.status_code in {404, 409} or '"NamespaceTerminating"' in answer.text
        assert answer.status_code < 300 or overtaken, answer.text
        return True


def _deleted_for(metadata: Manifest) -> timedelta:
    due = datetime.fromisoformat(metadata["deletionTimestamp"])
    begun = due - timedelta(seconds=metadata.get("deletionGracePeriodSeconds", 0))
    return datetime.now(UTC) - begun
