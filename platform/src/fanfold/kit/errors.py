"""Errors that a client sees: RFC 9457 problem details with stable types.

::

    Problem
    ├── BadRequest (400)   ├── NotFound (404)   ├── Unprocessable (422)
    ├── Unauthorized (401) ├── Conflict (409)   ├── TooManyRequests (429)
    ├── Forbidden (403)    ├── TooLarge (413)   ├── Unavailable (503)
    │                      ├── UnsupportedMedia (415)
    └── PreconditionFailed (412), PreconditionRequired (428)
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, ClassVar, Final

import msgspec

PROBLEM_BASE: Final = "https://fanfold.dev/problems/"
PROBLEM_MEDIA_TYPE: Final = "application/problem+json"


class Problem(Exception):  # noqa: N818 - RFC 9457's own word
    """Base of all errors that are meant for the client.

    Args:
        detail: One sentence that says what to do.
        kind: Last part of the problem's ``type`` URL; defaults to the class's own.
        headers: Extra response headers, e.g. ``Retry-After``.
        extra: Further members of the problem document.
    """

    status: ClassVar[int] = 500
    kind: str = "internal-error"

    def __init__(
        self, detail: str, *, kind: str | None = None, headers: dict[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.kind = kind or type(self).kind
        self.headers = headers or {}
        self.extra = extra

    @property
    def title(self) -> str:
        """The status's phrase (RFC 9457, section 4.2.1)."""
        return HTTPStatus(self.status).phrase

    def document(self, request_id: str = "") -> bytes:
        """The problem as JSON."""
        return problem_document(self.status, self.kind, self.detail, request_id, **self.extra)


def problem_document(status: int, kind: str, detail: str, request_id: str = "", **extra: Any) -> bytes:
    """Encode one problem; ``title`` is the status's phrase, as RFC 9457 section 4.2.1 allows."""
    body: dict[str, Any] = {
        "type": PROBLEM_BASE + kind,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **extra,
    }
    if request_id:
        body["request_id"] = request_id
    return msgspec.json.encode(body)


class BadRequest(Problem):
    """The request is malformed."""

    status = 400
    kind = "bad-request"


class Unauthorized(Problem):
    """No valid token."""

    status = 401
    kind = "unauthorized"

    def __init__(self, detail: str, *, kind: str | None = None, **extra: Any) -> None:
        super().__init__(detail, kind=kind, headers={"www-authenticate": "Bearer"}, **extra)


class Forbidden(Problem):
    """The token is valid, the deed is not allowed."""

    status = 403
    kind = "forbidden"


class NotFound(Problem):
    """No such thing, or none that this user may see."""

    status = 404
    kind = "not-found"


class Conflict(Problem):
    """The thing exists or changed meanwhile."""

    status = 409
    kind = "conflict"


class PreconditionFailed(Problem):
    """The thing is not what the request expects."""

    status = 412
    kind = "precondition-failed"


class PreconditionRequired(Problem):
    """The request must say what it expects."""

    status = 428
    kind = "precondition-required"


class TooLarge(Problem):
    """The body is over the limit."""

    status = 413
    kind = "too-large"


class UnsupportedMedia(Problem):
    """The body is no picture we read."""

    status = 415
    kind = "unsupported-media"


class Unprocessable(Problem):
    """Well-formed, but a value is not allowed."""

    status = 422
    kind = "unprocessable"


class TooManyRequests(Problem):
    """A limit was reached; ``Retry-After`` says when to come back."""

    status = 429
    kind = "too-many-requests"


class Unavailable(Problem):
    """A part behind this service does not answer; nothing was changed."""

    status = 503
    kind = "unavailable"

    def __init__(self, detail: str, *, retry_after: int = 1, **extra: Any) -> None:
        super().__init__(detail, headers={"retry-after": str(retry_after)}, **extra)
