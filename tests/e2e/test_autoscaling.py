"""Replicas follow the load on a real node, out and in, of a service by CPU and of a worker by its backlog."""

from __future__ import annotations

import asyncio
import math

import pytest

from benchmarks.autoscaling import Limits, run
from tools.local.clusters import Kubectl
from tools.local.up import gateway_url
from tools.progress import say

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(900)]


def test_load_adds_replicas_and_calm_takes_them_away(deployed: Kubectl) -> None:
    record = asyncio.run(run(deployed, gateway_url(deployed), Limits(out=180, into=240)))
    samples = record.samples
    say(", ".join(f"{what} {seconds:.0f} s" for what, seconds in record.reactions().items()))
    assert max(one.service_ready for one in samples) > 1
    assert max(one.worker_ready for one in samples) > 1
    assert (samples[-1].service, samples[-1].worker) == (1, 1)
    assert any(one.backlog for one in samples), "photos did wait"
    assert not any(math.isnan(seconds) for seconds in record.reactions().values())
    events = deployed.run("get", "events", "--field-selector=reason=Scaled")
    assert "platformservice/demo-image-worker" in events
