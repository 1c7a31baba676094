"""Requests of one Locust process: sent on Locust's fast HTTP client, recorded from their intended start."""

from __future__ import annotations

import uuid
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS
from urllib3 import encode_multipart_formdata

from fanfold_loadtest.shapes import Tokens

if TYPE_CHECKING:
    from locust.contrib.fasthttp import FastHttpUser

    from fanfold_loadtest.plan import Reader
    from fanfold_loadtest.recording import Recorder
    from fanfold_loadtest.schedule import Arrival

WINDOW = 2_000
"""Latencies that the live figures look back on."""


class Traffic:
    """Sends and records.

    Args:
        user: The Locust user whose connections are used.
        recorder: Where answers go.
        begin: `time.perf_counter` at the beginning of the run.
    """

    def __init__(self, user: FastHttpUser, recorder: Recorder, begin: float) -> None:
        self._client = user.client.client
        self._client.cookiejar = None  # people are told apart by their tokens; to look for cookies took 6 % of the CPU
        self._recorder = recorder
        self.host = str(user.host).rstrip("/")
        self.begin = begin
        self.done = 0
        self.failed = 0
        self.recent: list[float] = []

    def now(self) -> float:
        """Seconds from the beginning."""
        return perf_counter() - self.begin

    def exchange(self, method: str, path: str, reader: Reader, **options: Any) -> tuple[bytes | None, str | None]:
        """One request: the body of a good answer, or else what was wrong. Nothing is recorded."""
        headers = {"Authorization": f"Bearer {reader.token}", **options.pop("headers", {})}
        if method == "POST":
            headers.setdefault("Idempotency-Key", uuid.uuid4().hex)
        url = path if path.startswith("http") else self.host + path
        try:
            answer = self._client.urlopen(url, method=method, headers=headers, **options)
            return bytes(answer.content), None
        except FAILURE_EXCEPTIONS as error:
            return None, f"{type(error).__name__}: {error}"

    def record(self, phase: str, request: str, intended: float, failure: str | None) -> None:
        """One answer, now, of a request that was to begin at ``intended`` (seconds from the beginning)."""
        seconds = self.now() - intended
        self._recorder.add(phase, request, intended, seconds, failure)
        self.done += 1
        self.failed += failure is not None
        self.recent.append(seconds)
        if len(self.recent) > 2 * WINDOW:
            del self.recent[:WINDOW]

    def renew(self, reader: Reader) -> bool:
        """New tokens for old ones; whether that worked."""
        body = msgspec.json.encode({"refresh_token": reader.refresh_token})
        answer, _ = self.exchange(
            "POST", "/v1/sessions/refresh", reader, payload=body, headers={"Content-Type": "application/json"}
        )
        try:
            tokens = msgspec.json.decode(answer or b"", type=Tokens)
        except msgspec.DecodeError:
            return False
        reader.token, reader.refresh_token = tokens.access_token, tokens.refresh_token
        return True


class Visit:
    """One arrival on its way: its first request counts from the arrival's intended start."""

    def __init__(self, traffic: Traffic, arrival: Arrival, name: str | None = None, at: float | None = None) -> None:
        self._traffic = traffic
        self._arrival = arrival
        self._name = name or arrival.action
        self._at = arrival.at if at is None else at

    @property
    def phase(self) -> str:
        """The phase it belongs to."""
        return self._arrival.phase

    def follow_up(self, name: str) -> Visit:
        """A request that begins now, because the one before was answered."""
        return Visit(self._traffic, self._arrival, name, self._traffic.now())

    def send(self, method: str, path: str, reader: Reader, **options: Any) -> bytes | None:
        """Send and record; the body of a good answer."""
        body, failure = self._traffic.exchange(method, path, reader, **options)
        self._traffic.record(self._arrival.phase, self._name, self._at, failure)
        return body

    def upload(self, path: str, photo: tuple[str, str], reader: Reader) -> bytes | None:
        """Send a file as the multipart field ``file``."""
        name, media_type = photo
        content = Path(name).read_bytes()
        data, content_type = encode_multipart_formdata({"file": (Path(name).name, content, media_type)})
        return self.send("POST", path, reader, payload=data, headers={"Content-Type": content_type})
