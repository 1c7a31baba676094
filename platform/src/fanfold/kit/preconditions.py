"""Edits that know what they edit: ``ETag`` on reads, ``If-Match`` on changes (RFC 9110, section 13.1.1).

A tag names what its owner may edit, not what others add to an answer: a like changes no post's tag. It is compared
under the lock of the row that is changed, so of two edits of one state one is told that it came second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import xxhash
from fastapi import Depends, Header, Request

from fanfold.kit.errors import PreconditionFailed, PreconditionRequired


def entity_tag(*state: object) -> str:
    """A strong tag of what may be edited."""
    return f'"{xxhash.xxh3_64_hexdigest(repr(state).encode())}"'


@dataclass(frozen=True, slots=True)
class Precondition:
    """What the client believes to edit: the value of ``If-Match``; None when it does not say."""

    if_match: str | None = None

    def check(self, current: str) -> None:
        """Compare with the tag of what is there.

        Raises:
            PreconditionFailed: It is another.
        """
        if self.if_match is None:
            return
        tags = [tag.strip() for tag in self.if_match.split(",")]
        if "*" not in tags and current not in tags:
            raise PreconditionFailed("It was changed since you read it: read it again, then repeat your edit.")


def matches(if_none_match: str | None, etag: str) -> bool:
    """Weak comparison with each tag of the header, or ``*`` (RFC 9110, section 13.1.2): the client has it."""
    if not if_none_match:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return "*" in tags or etag.removeprefix("W/") in tags


def _precondition(
    request: Request,
    if_match: Annotated[
        str | None,
        Header(max_length=256, description="The `ETag` of what you read: 412 when it has changed since."),
    ] = None,
) -> Precondition:
    if if_match is None and request.app.state.require_if_match:
        raise PreconditionRequired("Send If-Match with the ETag of what you read.")
    return Precondition(if_match)


Expected = Annotated[Precondition, Depends(_precondition)]
"""Of an edit. Apps whose routes use it say in ``state.require_if_match`` whether one must be sent (428)."""
