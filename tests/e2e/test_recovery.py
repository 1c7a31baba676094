"""The commands of docs/operator/recovery.md, run as they stand there, bring back what was lost."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fanfold_loadtest.client import ApiError
from tests.e2e import waiting
from tests.e2e.traffic import Traffic
from tools.local.clusters import Kubectl
from tools.local.up import NAMESPACE, PLATFORM, gateway_url
from tools.progress import ROOT, say

until = partial(waiting.until, seconds=180)

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(900)]

TEXT = (ROOT / "docs" / "operator" / "recovery.md").read_text()
Run = Callable[[str], str]


def block(first: str) -> str:
    """The console block whose first command has these words, as a script: continued lines and comments as they are."""
    for text in re.findall(r"```console\n(.+?)```", TEXT, re.DOTALL):
        commands = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
        if first in commands[0]:
            return re.sub(r"\bNS\b", NAMESPACE, "".join(commands))
    pytest.fail(f"docs/operator/recovery.md has no block that begins with {first}")


def inline(first: str) -> str:
    """A command in the text that begins so."""
    found = re.search(rf"`({re.escape(first)}[^`]*)`", TEXT)
    assert found, first
    return re.sub(r"\bNS\b", NAMESPACE, " ".join(found[1].split()))


@pytest.fixture
def run(deployed: Kubectl, tmp_path: Path) -> Run:
    def call(script: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env=deployed.environment,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    return call


@pytest.fixture
def wait(deployed: Kubectl) -> Callable[[str], None]:
    def holds(condition: str) -> None:
        what = (f"platform/{PLATFORM}", f"--for=condition={condition}", "--timeout=300s")
        deployed.run("wait", *what, seconds=320)

    return holds


def test_a_copy_of_the_credentials_brings_them_back(deployed: Kubectl, run: Run, wait: Callable[[str], None]) -> None:
    run(block("get secret"))
    deployed.run("delete", "secret", f"{PLATFORM}-credentials")
    deployed.run("annotate", "platform", PLATFORM, "test/look=now")  # Secrets are not watched
    wait("DatabaseReady=false")
    run(inline("kubectl -n NS apply -f demo-credentials.json"))
    wait("DatabaseReady")
    wait("Ready")


def test_a_dump_brings_everything_back_into_a_new_volume(
    deployed: Kubectl, run: Run, wait: Callable[[str], None]
) -> None:
    with Traffic(gateway_url(deployed)) as traffic:
        time.sleep(5)
        acked = len(traffic.stop().acked)
    assert acked
    assert not traffic.lost(60)
    dump, *restore = re.split(r"(?<=fanfold\.dump\n)", block("pg_dump"), maxsplit=1)
    run(dump)
    renew = block("delete pvc")
    run(renew)
    run(renew.replace("postgresql", "valkey").rpartition("kubectl")[0])
    until(lambda: _migrated(deployed), "the migrations of the new volume")
    assert _gone(traffic), "the new volume is empty"
    started = time.monotonic()
    run("".join(restore))
    wait("Ready")
    say(f"restored in {time.monotonic() - started:.0f} s, {acked} posts")
    assert not traffic.lost(60)


def _migrated(kubectl: Kubectl) -> bool:
    jobs: Any = kubectl.get("jobs", f"--selector=fanfold.dev/platform={PLATFORM},fanfold.dev/service=migrations")
    return bool(jobs["items"]) and all(job.get("status", {}).get("succeeded") for job in jobs["items"])


def _gone(traffic: Traffic) -> bool:
    """Whether posts are missing, or whose they are."""
    try:
        return bool(traffic.lost(0))
    except ApiError:
        return True
