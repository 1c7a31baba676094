"""A whole platform as processes, scraped by a real Prometheus while people and a canary use it: once for all tests."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from dashboards.query import Prometheus, Window
from fanfold.dev.platform import DevPlatform, Options
from fanfold.dev.process import ChildProcess, free_ports
from tests.integration.prometheus import start_prometheus

ROOT = Path(__file__).resolve().parents[3]
READY_SECONDS = 240
RUN_SECONDS = 300
HOST = "127.0.0.2"
"""Where nobody's connections come from: a port that is free now still is when the platform is up."""
SCENARIO = """\
name: watched
description: Everything that a dashboard of the platform shows, in seconds.
people: 8
mix: {feed: 60, timeline: 10, post: 10, like: 5, follow: 5, upload: 10}
phases:
  - {name: before, seconds: 6, rate: 12}
  - {name: during, seconds: 6, rate: 12, events: [{at: 0.5, does: celebrity-post}]}
"""


@dataclass
class Observed:
    """What is left when the run is over; everything still runs.

    Attributes:
        url: Of Prometheus.
        platform: Its components are scraped.
        started: Unix time at which the load began.
        output: What the load generator said.
        code: How it ended.
        canary: Its process.
        results: What the run wrote.
    """

    url: str
    platform: DevPlatform
    started: float
    output: str
    code: int
    canary: ChildProcess
    results: Path

    def window(self) -> Window:
        """From the beginning of the load until now."""
        return Window(self.started, time.time(), 2.0, rate="15s")


def configuration(platform: DevPlatform, run: str, canary: str) -> str:
    """As `dashboards/prometheus/prometheus.yaml` labels pods of a cluster."""
    targets = [
        {
            "targets": [one.admin],
            "labels": {"namespace": "local", "platform": "dev", "pod": f"{one.name}-0", "component": one.name},
        }
        for one in platform.components
    ]
    jobs = {"fanfold": targets, "loadtest": [{"targets": [run]}], "canary": [{"targets": [canary]}]}
    return yaml.safe_dump(
        {
            "global": {"scrape_interval": "2s", "evaluation_interval": "1s"},
            "rule_files": [str(ROOT / "dashboards" / "prometheus" / "rules.yaml")],
            "scrape_configs": [
                {"job_name": name, "honor_labels": True, "static_configs": found} for name, found in jobs.items()
            ],
        }
    )


@pytest.fixture(scope="package")
def observed() -> Iterator[Observed]:
    loadtest = [sys.executable, "-c", "from fanfold_loadtest.cli import main; main()"]
    run_address, canary_address = (f"{HOST}:{port}" for port in free_ports(2))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fanfold-test-")))
        folder.chmod(0o711)
        options = Options(folder / "dev", port=0, ready_seconds=READY_SECONDS, quiet=True)
        platform = stack.enter_context(DevPlatform(options, print))
        config = configuration(platform, run_address, canary_address)
        url = start_prometheus(stack, folder, config)
        command = [*loadtest, "canary", "--url", platform.url, "--every", "2", "--metrics", canary_address]
        canary = ChildProcess("canary", command, log=folder / "canary.log", stop_signal=signal.SIGTERM)
        stack.callback(canary.stop)
        (folder / "watched.yaml").write_text(SCENARIO)
        started = time.time()
        command = [*loadtest, "run", f"{folder}/watched.yaml", "--url", platform.url, "--out", f"{folder}/results"]
        run = subprocess.run(
            [*command, "--metrics", run_address, "--prometheus", url],
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        written = list((folder / "results").glob("*"))
        assert len(written) == 1, run.stdout + run.stderr
        yield Observed(url, platform, started, run.stdout + run.stderr, run.returncode, canary, written[0])


@pytest.fixture
def prometheus(observed: Observed) -> Iterator[Prometheus]:
    with Prometheus(observed.url) as client:
        yield client
