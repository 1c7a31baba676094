"""The Locust side of a run: one process of it, in which one Locust user drives the arrivals of a plan.

Started by `fanfold_loadtest.runner` in a process of its own, for Locust patches the standard library (gevent). Every
request has a time at which it is meant to begin and a greenlet of its own.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from pathlib import Path
from time import perf_counter
from typing import Final

import gevent
import msgspec
from gevent.pool import Group
from locust import FastHttpUser, task

from fanfold_loadtest.actions import ACTIONS
from fanfold_loadtest.arrivals import DRAIN_SECONDS, LATE_SECONDS, percentile
from fanfold_loadtest.plan import PLAN_VARIABLE, Plan, Progress, Reader, progress_path, put, read_plan, share_path
from fanfold_loadtest.recording import Age, Mark, Recorder, Share, Tally
from fanfold_loadtest.scenario import Phase
from fanfold_loadtest.schedule import Arrival, arrivals, begins, celebrity_posts
from fanfold_loadtest.sockets import Sockets, action
from fanfold_loadtest.traffic import Traffic, Visit

MAX_UNDER_WAY: Final = 5_000
"""Requests at once; those that would come on top are dropped, and counted."""
CONNECTIONS: Final = 1_024
WATCH_SECONDS: Final = 30.0
"""A post that a follower does not see for so long counts as never seen."""
WATCH_PAUSE: Final = 0.1
"""Between two looks at a feed: the resolution of ages."""
PROGRESS_SECONDS: Final = 0.5
POST_ATTEMPTS: Final = 5
"""A post that is not accepted, by an overloaded gateway for example, is sent again: ages count from its acceptance."""
POST_PAUSE: Final = 1.0
SETTLE_SECONDS: Final = 5.0
"""After the end of a step; what is not answered then counts as failed when the step is judged."""
SETTLE_PAUSE: Final = 0.05


class Drive(FastHttpUser):
    """Everybody who visits: one instance sends every request of the plan."""

    fixed_count = 1
    concurrency = CONNECTIONS
    network_timeout = 20.0
    connection_timeout = 5.0
    insecure = False

    @task
    def drive(self) -> None:
        """Do the whole plan, write what was measured, and end the process; when interrupted, what there is."""
        path = Path(os.environ[PLAN_VARIABLE])
        run = Run(self, read_plan(path), path)
        try:
            run.perform()
        finally:
            put(share_path(path), run.share())
        self.environment.runner.quit()


class Run:
    """One process's part of a run."""

    def __init__(self, user: FastHttpUser, plan: Plan, path: Path) -> None:
        self._plan = plan
        self._path = path
        self._recorder = Recorder(plan.scenario.seconds)
        self._share = Share()
        self._under_way = Group()
        self._busy = 0.0
        self._measured = 0.0
        gevent.sleep(max(0.0, plan.begin_at - time.time()))
        self._traffic = Traffic(user, self._recorder, perf_counter())
        self._sockets = Sockets(self._traffic, self._recorder, plan)
        self._actions = {**ACTIONS, "notify": action(self._sockets)}

    def perform(self) -> None:
        """Send everything at its time, then wait for what is under way."""
        side = [gevent.spawn(self._report), gevent.spawn(self._account), gevent.spawn(self._keep_logins)]
        mine = celebrity_posts(self._plan.scenario) if self._plan.index == 0 else []
        if mine:
            side += [gevent.spawn(self._warm)]
        measured = [(phase, begin) for phase, begin in begins(self._plan.scenario) if phase.measured]
        wanted = measured if self._plan.scenario.capacity else []
        steps = [gevent.spawn_later(begin, self._step, phase, begin) for phase, begin in wanted]
        side += self._sockets.start()
        happenings = [gevent.spawn_later(at, self._happen, phase.name) for at, phase in mine]
        try:
            self._load()
            self._under_way.join(timeout=DRAIN_SECONDS)
            gevent.joinall(steps, timeout=SETTLE_SECONDS)
            gevent.joinall(happenings, timeout=WATCH_SECONDS)
            self._sockets.settle()
            for unanswered in list(self._under_way.greenlets):
                arrival = unanswered.args[0]
                self._traffic.record(arrival.phase, arrival.action, arrival.at, "no answer")
        finally:
            self._under_way.kill(timeout=1)
            gevent.killall(side + steps + happenings, timeout=1)

    def share(self) -> Share:
        """What was measured so far."""
        self._recorder.put_into(self._share)
        self._share.cpu_percent = 100 * self._busy / self._measured if self._measured else 0.0
        return self._share

    def _load(self) -> None:
        if self._plan.scenario.model == "closed":
            self._load_closed()
            return
        planned = arrivals(self._plan.scenario, self._plan.seed, self._plan.index, self._plan.of)
        if self._plan.scenario.readers == "once":
            planned = planned[: len(self._plan.readers)]
        for arrival in planned:
            gevent.sleep(max(0.0, arrival.at - self._now()))
            self._share.arrivals += 1
            self._share.late += self._now() - arrival.at > LATE_SECONDS
            if len(self._under_way) >= MAX_UNDER_WAY:
                self._share.dropped += 1
            else:
                self._under_way.spawn(self._visit, arrival)
        gevent.sleep(max(0.0, self._plan.scenario.seconds - self._now()))

    def _load_closed(self) -> None:
        """Users who each send the next request when the last was answered."""
        for phase, begin in begins(self._plan.scenario):
            users = [
                gevent.spawn(self._loop, phase.name, begin + phase.seconds, number)
                for number in range(self._plan.index, round(phase.rate), self._plan.of)
            ]
            gevent.joinall(users)

    def _loop(self, phase: str, until: float, number: int) -> None:
        chance = random.Random(f"{self._plan.seed}/{phase}/{number}")  # noqa: S311 - reproducible, not secret
        mix = self._plan.scenario.mix
        while self._now() < until:
            self._share.arrivals += 1
            action = chance.choices(list(mix), list(mix.values()))[0]
            self._visit(Arrival(self._now(), phase, action, chance.getrandbits(24)))

    def _visit(self, arrival: Arrival) -> None:
        plan = self._plan
        # Of a number, not of a text: that would be hashed first.
        draw = (plan.seed * plan.of + plan.index) << 32 | arrival.number
        chance = random.Random(draw)  # noqa: S311 - reproducible, not secret
        once = plan.scenario.readers == "once"
        reader = plan.readers[arrival.number % len(plan.readers)] if once else chance.choice(plan.readers)
        self._actions[arrival.action](Visit(self._traffic, arrival), plan, reader, chance)

    def _happen(self, phase: str) -> None:
        """The celebrity publishes, and followers look out for it."""
        plan = self._plan
        body = msgspec.json.encode({"image_ids": [plan.celebrity_photo], "caption": "From the stage"})
        self._share.marks.append(Mark(self._now(), "celebrity posts"))
        headers = {"Content-Type": "application/json", "Idempotency-Key": uuid.uuid4().hex}
        for _ in range(POST_ATTEMPTS):
            answer, failure = self._traffic.exchange("POST", "/v1/posts", plan.celebrity, payload=body, headers=headers)
            if answer is not None:
                break
            gevent.sleep(POST_PAUSE)
        if answer is None:
            self._recorder.remark(f"celebrity-post: {failure}")
            self._share.ages += [Age(phase, None) for _ in plan.watchers]
            return
        post_id, answered = msgspec.json.decode(answer)["id"].encode(), self._now()
        watching = [gevent.spawn(self._watch, watcher, post_id) for watcher in plan.watchers]
        gevent.joinall(watching, timeout=WATCH_SECONDS + 5)
        for one in watching:
            self._share.ages.append(Age(phase, None if one.value is None else max(0.0, one.value - answered)))

    def _warm(self) -> None:
        """Ages are of pushes into feeds that are there, not of rebuilds by the look itself."""
        for watcher in self._plan.watchers:
            self._traffic.exchange("GET", "/v1/feed?limit=5", watcher)

    def _watch(self, watcher: Reader, post_id: bytes) -> float | None:
        until = self._now() + WATCH_SECONDS
        while self._now() < until:
            body, _ = self._traffic.exchange("GET", "/v1/feed?limit=5", watcher)
            if body is not None and post_id in body:
                return self._now()
            gevent.sleep(WATCH_PAUSE)
        return None

    def _keep_logins(self) -> None:
        """Replace tokens at half of their life, spread over it."""
        plan = self._plan
        mine = [*plan.readers, *([plan.celebrity, *plan.watchers] if plan.index == 0 else [])]
        pause = self._plan.token_seconds / 2 / len(mine)
        while True:
            for reader in mine:
                gevent.sleep(pause)
                if not self._traffic.renew(reader):
                    self._recorder.remark("a login could not be renewed")

    def _account(self) -> None:
        """CPU time of this process over the measured phases, in seconds."""
        for phase, begin in begins(self._plan.scenario):
            gevent.sleep(max(0.0, begin - self._now()))
            cpu, wall = time.process_time(), perf_counter()
            gevent.sleep(max(0.0, begin + phase.seconds - self._now()))
            if phase.measured:
                self._busy += time.process_time() - cpu
                self._measured += perf_counter() - wall

    def _step(self, phase: Phase, begin: float) -> None:
        """What one phase came to, told as soon as it is known: whether the next is worth while depends on it."""
        whole, cpu, wall = self._share, time.process_time(), perf_counter()
        before = whole.arrivals, whole.late, whole.dropped
        gevent.sleep(max(0.0, begin + phase.seconds - self._now()))
        step = Share(
            arrivals=whole.arrivals - before[0],
            late=whole.late - before[1],
            dropped=whole.dropped - before[2],
            cpu_percent=100 * (time.process_time() - cpu) / (perf_counter() - wall),
        )
        until = self._now() + SETTLE_SECONDS
        while (waiting := self._unanswered(phase.name)) and self._now() < until:
            gevent.sleep(SETTLE_PAUSE)
        cells = {name: tally.cell() for (of, name), tally in self._recorder.cells.items() if of == phase.name}
        for arrival in waiting:
            cells.setdefault(arrival.action, Tally().cell()).failed += 1
        step.cells[phase.name] = cells
        whole.steps[phase.name] = step

    def _unanswered(self, phase: str) -> list[Arrival]:
        return [one.args[0] for one in list(self._under_way.greenlets) if one.args[0].phase == phase]

    def _report(self) -> None:
        cpu, at = time.process_time(), perf_counter()
        while True:
            gevent.sleep(PROGRESS_SECONDS)
            now = self._now()
            used, begun = cpu, at
            cpu, at = time.process_time(), perf_counter()
            phase = next((p.name for p, begin in reversed(list(begins(self._plan.scenario))) if begin <= now), "")
            recent = self._traffic.recent[-1_000:]
            p50, p99 = (1000 * percentile(recent, percent) if recent else 0.0 for percent in (50, 99))
            told = Progress(
                phase,
                self._traffic.done,
                self._traffic.failed,
                p50,
                p99,
                arrivals=self._share.arrivals,
                late=self._share.late,
                dropped=self._share.dropped,
                under_way=len(self._under_way),
                cpu_cores=(cpu - used) / (at - begun),
                steps=self._share.steps,
            )
            put(progress_path(self._path), told)

    def _now(self) -> float:
        """Seconds from the beginning."""
        return self._traffic.now()
