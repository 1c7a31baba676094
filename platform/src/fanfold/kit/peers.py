"""Calls of other services: MessagePack over keep-alive HTTP with a signed service identity."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

import httpx
import msgspec
import stamina

from fanfold.contracts import headers, internal
from fanfold.kit import deadline, metrics
from fanfold.kit.errors import Problem, Unavailable
from fanfold.kit.identity import Identity
from fanfold.kit.logging import request_id

if TYPE_CHECKING:
    from fanfold.kit.identity import IdentitySigner

Request = TypeVar("Request", bound=msgspec.Struct)
Response = TypeVar("Response", bound=msgspec.Struct)

TIMEOUT: Final = httpx.Timeout(5.0, connect=1.0)
ATTEMPTS: Final = 3
"""All internal calls are idempotent, so any failure on the way may be tried again."""


class PeerProblem(Problem):
    """The peer refused with a problem of its own: handed on with its status."""

    def __init__(self, status: int, document: dict[str, object]) -> None:
        super().__init__(str(document.get("detail", "")), kind=str(document.get("type", "")).rpartition("/")[2])
        self.status = status  # type: ignore[misc]  # an instance knows its status only now


class Peers:
    """The other services by name."""

    def __init__(self, urls: dict[str, str], signer: IdentitySigner, service: str) -> None:
        self._urls = urls
        self._signer = signer
        self._identity = Identity(service=service)
        self._client = httpx.AsyncClient(
            timeout=TIMEOUT, limits=httpx.Limits(max_connections=100, max_keepalive_connections=20)
        )

    async def call(self, endpoint: internal.Endpoint[Request, Response], request: Request) -> Response:
        """One call; connection failures and 5xx are tried again with growing, jittered pauses.

        Raises:
            Unavailable: The peer does not answer.
            PeerProblem: The peer refused (4xx).
            DeadlinePassed: Nobody waits for the answer any more.
        """
        body = msgspec.msgpack.encode(request)
        started = time.perf_counter()
        try:
            async for attempt in stamina.retry_context(
                on=(httpx.TransportError, _ServerError), attempts=ATTEMPTS, timeout=8, wait_initial=0.05, wait_max=1
            ):
                with attempt:
                    answer = await self._post(endpoint, body)
        except (httpx.TransportError, _ServerError) as error:
            raise Unavailable(f"The {endpoint.service} service does not answer; try again.") from error
        finally:
            metrics.PEER_SECONDS.labels(endpoint.service, endpoint.path).observe(time.perf_counter() - started)
        return msgspec.msgpack.decode(answer, type=endpoint.response)

    async def _post(self, endpoint: internal.Endpoint[Request, Response], body: bytes) -> bytes:
        base = self._urls.get(endpoint.service)
        if base is None:
            raise Unavailable(f"No address of the {endpoint.service} service is configured (FANFOLD_PEERS).")
        answer = await self._client.post(
            base + endpoint.path,
            content=body,
            headers={
                "content-type": internal.MEDIA_TYPE,
                headers.IDENTITY: self._signer.sign(self._identity),
                headers.REQUEST_ID: request_id.get(),
                **deadline.onward(),
            },
        )
        if answer.status_code == httpx.codes.GATEWAY_TIMEOUT:
            raise deadline.DeadlinePassed(f"The {endpoint.service} service was asked too late; nobody waits any more.")
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise _ServerError(f"{endpoint.service} answered {answer.status_code}")
        if answer.status_code >= httpx.codes.BAD_REQUEST:
            raise PeerProblem(answer.status_code, answer.json())
        return answer.content

    async def close(self) -> None:
        """Close idle connections."""
        await self._client.aclose()


class _ServerError(Exception):
    """A 5xx answer of a peer."""
