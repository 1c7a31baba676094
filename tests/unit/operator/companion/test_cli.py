"""The command `kubectl-fanfold` without a cluster: refusals, and completions."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fanfold_operator.api import ApiError
from fanfold_operator.companion.access import advice

Result = subprocess.CompletedProcess[str]
NOWHERE = """\
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: c, user: u, namespace: prod}}, {name: there, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    def call(program: str, *words: str, kubeconfig: str = NOWHERE) -> Result:
        (tmp_path / "config").write_text(kubeconfig)
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KUBECONFIG": str(tmp_path / "config")}
        path = shutil.which(program)
        assert path, f"{program} is not installed: uv sync"
        return subprocess.run([path, *words], env=environment, capture_output=True, text=True, timeout=60, check=False)

    return call


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["status"], "no answer from the API server"),
        (["status", "--kubeconfig", "/nowhere"], "there is no kubeconfig /nowhere"),
        (["status", "--context", "elsewhere"], "elsewhere"),
        (["status", "--watch", "-o", "json"], "--watch is for people"),
        (["ring", "-s", "feed", "-s", "post"], "one --service"),
        (["logs", "--since", "yesterday"], "write 90s, 5m, 2h30m or 1d"),
        (["logs", "--grep", "("], "no regular expression"),
    ],
)
def test_a_refusal_is_one_line_that_says_what_to_do(run: Callable[..., Result], words: list[str], says: str) -> None:
    answer = run("kubectl-fanfold", *words)
    assert answer.returncode == 2
    assert says in answer.stderr
    assert answer.stderr.startswith("kubectl-fanfold: ")
    assert answer.stderr.count("\n") == 1
    assert answer.stdout == ""


def test_wrong_usage_has_the_exit_code_of_what_cannot_be_told(run: Callable[..., Result]) -> None:
    assert run("kubectl-fanfold", "status", "--nonsense").returncode == 2


@pytest.mark.parametrize(
    ("words", "candidates"),
    [
        ([""], ["status", "ring", "pause", "resume", "logs", "top"]),
        (["re"], ["resume"]),
        (["logs", "--service", "fe"], ["feed", "feed-worker"]),
        (["status", "--context", ""], ["here", "there"]),
        (["status", "-o", "j"], ["json"]),
        (["status", ""], []),
    ],
)
def test_kubectl_is_told_what_could_stand_next(
    run: Callable[..., Result], words: list[str], candidates: list[str]
) -> None:
    answer = run("kubectl_complete-fanfold", *words)
    *found, directive = answer.stdout.splitlines()
    assert sorted(found) == sorted(candidates)
    assert directive == ":4"
    assert answer.returncode == 0


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ApiError(0, "Unreachable", "GET /x: TimeoutError"), "is the cluster up"),
        (ApiError(401, "Unauthorized", "Unauthorized"), "log in again"),
        (ApiError(403, "Forbidden", 'User "u" cannot list resource "pods"'), 'cannot list resource "pods"'),
        (ApiError(403, "Forbidden", "x"), "docs/cli.md has a Role"),
        (ApiError(500, "", "etcd is gone"), "refused (500): etcd is gone"),
    ],
)  # fmt: skip
def test_refusals_of_the_api_server_say_what_to_do(error: ApiError, words: str) -> None:
    assert words in advice(error)


def test_a_cluster_without_the_custom_resources_is_told_from_one_without_platforms(run: Callable[..., Result]) -> None:
    class Bare(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()
            self.wfile.write(b"404 page not found\n")

        def log_message(self, *_: object) -> None:
            """Says nothing on the tests' output."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Bare) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            for words in (["status"], ["ring", "demo"], ["logs", "demo"], ["pause", "demo"]):
                answer = run(
                    "kubectl-fanfold",
                    *words,
                    kubeconfig=NOWHERE.replace("127.0.0.1:1", f"127.0.0.1:{server.server_port}"),
                )
                assert answer.returncode == 2
                assert "no custom resources of fanfold.dev: install the operator" in answer.stderr
        finally:
            server.shutdown()
