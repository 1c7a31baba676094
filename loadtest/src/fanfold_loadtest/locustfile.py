"""The scenario `browse` for Locust: 60 % home feed, 30 % an author's timeline, 10 % a post with its photo.

Run by ``fanfold-loadtest run browse`` in a process of its own, for Locust patches the standard library (gevent). One
Locust user drives the open arrival model: every request has a time at which it is meant to begin and a greenlet of its
own, and is reported with its latency from that time.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import gevent
import msgspec
from gevent.pool import Group
from locust import FastHttpUser, task
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS

from fanfold_loadtest.arrivals import DRAIN_SECONDS, LATE_SECONDS, Measurement, poisson
from fanfold_loadtest.plan import PLAN_VARIABLE, Figures, Plan, Reader, Result, read_plan, result_path
from fanfold_loadtest.report import measured

MIX: Final = {"feed": 60, "timeline": 30, "post": 10}


class Browse(FastHttpUser):
    """Readers of a photo feed, all of them: one instance sends every request of the plan."""

    fixed_count = 1
    concurrency = 256
    network_timeout = 10.0
    connection_timeout = 5.0
    insecure = False

    @task
    def drive(self) -> None:
        """Send the whole plan, write its result, and end the run."""
        path = Path(os.environ[PLAN_VARIABLE])
        self.measurements: dict[str, Measurement] = {}
        plan = read_plan(path)
        starts = poisson(plan.rate, plan.seconds, plan.seed)
        late = self._send_all(plan, starts)
        result_path(path).write_bytes(msgspec.json.encode(_result(self.measurements, plan.rate, len(starts), late)))
        self.environment.runner.quit()

    def _send_all(self, plan: Plan, starts: list[float]) -> int:
        chance = random.Random(plan.seed)  # noqa: S311 - reproducible, not secret
        kinds = chance.choices(list(MIX), list(MIX.values()), k=len(starts))
        under_way = Group()
        late = 0
        begin = perf_counter()
        for kind, start in zip(kinds, starts, strict=True):
            gevent.sleep(max(0.0, begin + start - perf_counter()))
            late += perf_counter() - begin - start > LATE_SECONDS
            under_way.spawn(self._visit, kind, chance.choice(plan.readers), plan, chance.random(), begin + start)
        under_way.join(timeout=DRAIN_SECONDS)
        for _ in under_way.greenlets:
            self._record(
                "unanswered", perf_counter() - DRAIN_SECONDS, f"no answer within {DRAIN_SECONDS:g} s of the end"
            )
        under_way.kill(timeout=1)
        return late

    def _visit(self, kind: str, reader: Reader, plan: Plan, draw: float, intended: float) -> None:
        if kind == "feed":
            self._get("feed", "/v1/feed", reader, intended)
        elif kind == "timeline":
            author = plan.authors[int(draw * len(plan.authors))]
            self._get("timeline", f"/v1/users/{author}/posts", reader, intended)
        else:
            body = self._get("post", f"/v1/posts/{plan.posts[int(draw * len(plan.posts))]}", reader, intended)
            if body is not None:
                self._get("photo", _photo(msgspec.json.decode(body)), reader, perf_counter())

    def _get(self, name: str, path: str, reader: Reader, intended: float) -> bytes | None:
        """One request; its body if it was answered well."""
        url = path if path.startswith("http") else f"{self.host}{path}"
        try:
            answer = self.client.client.urlopen(url, headers={"Authorization": f"Bearer {reader.token}"})
            body: bytes = answer.content
        except FAILURE_EXCEPTIONS as error:
            self._record(name, intended, f"{name}: {type(error).__name__}: {error}")
            return None
        self._record(name, intended, None)
        return body

    def _record(self, name: str, intended: float, failure: str | None) -> None:
        seconds = perf_counter() - intended
        measurement = self.measurements.setdefault(name, Measurement())
        if failure is None:
            measurement.latencies.append(seconds)
        else:
            measurement.failures.append(failure)
        self.environment.events.request.fire(
            request_type="GET",
            name=name,
            response_time=seconds * 1000,
            response_length=0,
            context={},
            exception=RuntimeError(failure) if failure else None,
        )


def _photo(post: dict[str, Any]) -> str:
    """The variant that a phone would take: WebP, the narrowest of at least 320 pixels, or the widest there is."""
    variants = [v for image in post["images"] for v in image["variants"] if v["format"] == "webp"]
    fitting = [variant for variant in variants if variant["width"] >= 320]
    chosen = min(fitting or variants[-1:], key=lambda variant: variant["width"])
    return str(chosen["url"])


def _result(measurements: dict[str, Measurement], rate: float, arrivals: int, late: int) -> Result:
    failures = [failure for measurement in measurements.values() for failure in measurement.failures]
    fields = set(Figures.__struct_fields__)
    return Result(
        requests={
            name: Figures(**{key: value for key, value in measured(measurement, rate).items() if key in fields})
            for name, measurement in sorted(measurements.items())
        },
        failures=len(failures),
        first_failure=failures[0] if failures else "",
        arrivals=arrivals,
        late_starts=late,
    )
