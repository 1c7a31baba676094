"""Locust as most people use it: users in a closed loop, ``self.client.get``. What it used and saw goes into a file.

Environment: ``BENCH_OUT`` (file), ``BENCH_PATH``, ``BENCH_PACE`` (requests a second of each user; 0: as fast as answers
come), ``BENCH_WARM`` (seconds that do not count).
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, constant_throughput, events, task

PATH = os.environ["BENCH_PATH"]
PACE = float(os.environ["BENCH_PACE"])


class Reader(FastHttpUser):
    """One user."""

    wait_time = constant_throughput(PACE) if PACE else lambda _: 0

    @task
    def read(self) -> None:
        """One request."""
        self.client.get(PATH)


@events.test_start.add_listener
def begin(environment: Any, **_: Any) -> None:
    """Count from the end of the warm-up on."""

    def mark() -> None:
        gevent.sleep(float(os.environ["BENCH_WARM"]))
        environment.stats.reset_all()
        environment.begun = time.process_time(), time.perf_counter()

    gevent.spawn(mark)


@events.test_stop.add_listener
def end(environment: Any, **_: Any) -> None:
    """Write what was used and seen."""
    cpu, at = environment.begun
    total = environment.stats.total
    seen = {
        "cpu_seconds": time.process_time() - cpu,
        "seconds": time.perf_counter() - at,
        "requests": total.num_requests,
        "failed": total.num_failures,
        "p50_ms": total.get_response_time_percentile(0.5),
        "p99_ms": total.get_response_time_percentile(0.99),
    }
    Path(os.environ["BENCH_OUT"]).write_text(json.dumps(seen))
