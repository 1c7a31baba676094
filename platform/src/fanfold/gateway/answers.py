"""Answers that the gateway gives itself: problems, pages, nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING

from fanfold.contracts import headers
from fanfold.gateway.messages import SECURITY_LINES, STATUS_LINES
from fanfold.kit.errors import PROBLEM_MEDIA_TYPE

if TYPE_CHECKING:
    from fanfold.kit.errors import Problem


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `headers` have lower-case names."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def problem_answer(problem: Problem, request_id: str) -> Answer:
    """A problem as problem details (RFC 9457)."""
    return Answer(problem.status, problem.document(request_id), {"content-type": PROBLEM_MEDIA_TYPE, **problem.headers})


def encode(
    answer: Answer, *, request_id: str, close: bool, head_only: bool = False, lines: bytes = SECURITY_LINES
) -> bytes:
    """The answer on the wire. ``head_only``: the request was HEAD; ``lines``: further header lines."""
    own = [f"{name}: {value}\r\n" for name, value in answer.headers.items()]
    own.append(f"date: {formatdate(usegmt=True)}\r\n")
    if request_id:
        own.append(f"{headers.REQUEST_ID}: {request_id}\r\n")
    if answer.status != 304:
        own.append(f"content-length: {len(answer.body)}\r\n")
    if close:
        own.append("connection: close\r\n")
    head = STATUS_LINES[answer.status] + "".join(own).encode("latin-1") + lines + b"\r\n"
    return head if head_only else head + answer.body
