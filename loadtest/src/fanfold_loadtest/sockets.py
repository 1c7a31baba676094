"""Notifications over WebSockets: authors listen, others comment on their posts, and each delivery's age is measured.

A comment that was accepted at one moment and reaches its author's socket at another is that much old. Who gets more
than is pushed is told to poll, and does, as an app would: then the age is that of the poll.
"""

from __future__ import annotations

import uuid
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import gevent
import msgspec
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

if TYPE_CHECKING:
    import random

    from fanfold_loadtest.plan import Plan, Reader
    from fanfold_loadtest.recording import Recorder
    from fanfold_loadtest.traffic import Traffic, Visit

DELIVERY: Final = "notification"
"""What deliveries are recorded as."""
PATIENCE_SECONDS: Final = 30.0
"""A delivery that takes so long counts as lost."""
OPEN_SECONDS: Final = 10.0
RECONNECT_SECONDS: Final = 0.5


class Message(msgspec.Struct):
    """What comes over a socket, as far as it matters here."""

    kind: str
    comment_id: str | None = None
    interval: float = 10.0


class Items(msgspec.Struct):
    """The newest notifications, when they are polled."""

    items: list[Message]


class Sockets:
    """The listeners of one process; each process has its own and waits for its own comments.

    Args:
        traffic: Sends requests, and has the clock.
        recorder: Where ages go.
        plan: Says who listens.
    """

    def __init__(self, traffic: Traffic, recorder: Recorder, plan: Plan) -> None:
        self._traffic = traffic
        self._recorder = recorder
        self._listeners = [reader for reader in plan.readers if reader.user_id in plan.listening]
        self._posts = plan.listening
        self._expected: dict[str, tuple[str, float]] = {}
        self._early: dict[str, float] = {}
        """Deliveries that overtook the answer to their comment, or are of another process's."""

    def start(self) -> list[gevent.Greenlet]:
        """Listen, until killed."""
        return [gevent.spawn(self._listen, listener) for listener in self._listeners]

    def comment(self, visit: Visit, reader: Reader, chance: random.Random, phase: str) -> None:
        """Comment on a post of a listener, and expect the notification of it."""
        listener = chance.choice([one for one in self._listeners if one.user_id != reader.user_id])
        body = msgspec.json.encode({"text": f"Seen {uuid.uuid4().hex[:8]}"})
        path = f"/v1/posts/{chance.choice(self._posts[listener.user_id])}/comments"
        answer = visit.send("POST", path, reader, payload=body, headers={"Content-Type": "application/json"})
        if answer is None:
            return
        comment, accepted = msgspec.json.decode(answer)["id"], self._traffic.now()
        if comment in self._early:
            self._delivered(phase, accepted, self._early.pop(comment))
        else:
            self._expected[comment] = (phase, accepted)

    def settle(self) -> None:
        """Wait for what is under way; what then has not come is lost."""
        until = perf_counter() + PATIENCE_SECONDS
        while self._expected and perf_counter() < until:
            gevent.sleep(0.05)
        for phase, accepted in self._expected.values():
            self._recorder.add(phase, DELIVERY, accepted, PATIENCE_SECONDS, f"not within {PATIENCE_SECONDS:g} s")
        self._expected.clear()

    def _listen(self, reader: Reader) -> None:
        url = self._traffic.host.replace("http", "ws", 1) + "/v1/ws"
        while True:
            headers = {"authorization": f"Bearer {reader.token}"}
            try:
                with connect(url, additional_headers=headers, open_timeout=OPEN_SECONDS, proxy=None) as socket:
                    for text in socket:
                        self._heard(reader, text)
            except (OSError, WebSocketException) as error:
                self._recorder.remark(f"socket: {type(error).__name__}: {error}")
            gevent.sleep(RECONNECT_SECONDS)
            self._poll(reader)  # for what came meanwhile

    def _heard(self, reader: Reader, text: str | bytes) -> None:
        message = msgspec.json.decode(text, type=Message)
        if message.kind == "poll":
            gevent.spawn_later(message.interval, self._poll, reader)
        elif message.comment_id:
            self._seen(message.comment_id)

    def _poll(self, reader: Reader) -> None:
        answer, _ = self._traffic.exchange("GET", "/v1/notifications?limit=100", reader)
        if answer is not None:
            for message in msgspec.json.decode(answer, type=Items).items:
                if message.comment_id:
                    self._seen(message.comment_id)

    def _seen(self, comment: str) -> None:
        phase, accepted = self._expected.pop(comment, (None, 0.0))
        if phase is None:
            self._early.setdefault(comment, self._traffic.now())
        else:
            self._delivered(phase, accepted, self._traffic.now())

    def _delivered(self, phase: str, accepted: float, at: float) -> None:
        self._recorder.add(phase, DELIVERY, accepted, max(0.0, at - accepted), None)


def action(sockets: Sockets) -> Any:
    """The kind of request ``notify`` of a mix, in the shape of `fanfold_loadtest.actions`."""

    def notify(visit: Visit, plan: Plan, reader: Reader, chance: random.Random) -> None:
        del plan
        sockets.comment(visit, reader, chance, visit.phase)

    return notify
