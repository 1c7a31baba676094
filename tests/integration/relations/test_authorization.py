"""Every documented operation, called by everybody. An operation without a row fails.

Everybody: the owner of what it names, a follower of that private account, a stranger, somebody whom the owner blocks,
a moderator, and nobody. A moderator is a stranger everywhere but in the routes of moderation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

import pytest

from fanfold.contracts.ids import new_id
from fanfold.contracts.roles import MODERATOR
from tests.integration.relations.conftest import TAG
from tools.openapi import TARGET

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.relations.conftest import Town

pytestmark = pytest.mark.integration

OTHER: Final = new_id()
"""Names somebody, or something, that concerns none of the four."""
SMALL_IMAGES: Final[dict[str, Any]] = {"image_processes": 1, "image_process_mib": 400}


class Row(NamedTuple):
    """Statuses for owner, follower, stranger and blocked. ``other``: the path names somebody who concerns nobody.

    ``moderator``: where it is not the stranger's.
    """

    owner: int
    follower: int
    stranger: int
    blocked: int
    body: Any = None
    query: str = ""
    other: bool = False
    moderator: int = 0


def own(status: int, body: Any = None, *, query: str = "", other: bool = False) -> Row:
    """Acts on what is the caller's own, whoever calls."""
    return Row(status, status, status, status, body, query, other)


def moderators(status: int, body: Any = None) -> Row:
    """For moderators only, whatever the thing is to them."""
    return Row(403, 403, 403, 403, body, moderator=status)


WHY: Final = {"reason": "breaks rule 3"}
IMAGE: Final = str(new_id())
# In this order: what deletes comes last, and the owner is always the last to call.
TABLE: Final[dict[str, Row]] = {
    "GET /v1/users/{user_id}": Row(200, 200, 200, 404),
    "GET /v1/users/{author_id}/posts": Row(200, 200, 403, 404),
    "GET /v1/users/{user_id}/followers": Row(200, 200, 403, 404),
    "GET /v1/users/{user_id}/following": Row(200, 200, 403, 404),
    "GET /v1/posts/{post_id}": Row(200, 200, 404, 404),
    "GET /v1/posts/{post_id}/likes": Row(200, 200, 404, 404),
    "GET /v1/posts/{post_id}/comments": Row(200, 200, 404, 404),
    "PUT /v1/posts/{post_id}/like": Row(204, 204, 404, 404),
    "POST /v1/posts/{post_id}/comments": Row(201, 201, 404, 404, {"text": "nice"}),
    "PUT /v1/comments/{comment_id}/like": Row(204, 204, 404, 404),
    "PATCH /v1/posts/{post_id}": Row(200, 403, 404, 404, {"caption": "mine"}),
    "PUT /v1/posts/{post_id}/report": Row(204, 204, 404, 404, {"reason": "spam"}),
    "PUT /v1/users/{user_id}/report": Row(204, 204, 204, 404, {"reason": "other", "note": "it is me"}),
    "GET /v1/moderation/posts/reports": moderators(200),
    "GET /v1/moderation/posts/log": moderators(200),
    "GET /v1/moderation/posts/{post_id}": moderators(200),
    "PUT /v1/moderation/posts/{post_id}/dismissal": moderators(204, WHY),
    "PUT /v1/moderation/posts/{post_id}/hidden": moderators(204, WHY),
    "PUT /v1/moderation/posts/{post_id}/shown": moderators(204, WHY),
    "GET /v1/moderation/users/reports": moderators(200),
    "GET /v1/moderation/users/log": moderators(200),
    "GET /v1/moderation/users/{user_id}": moderators(200),
    "PUT /v1/moderation/users/{user_id}/dismissal": moderators(204, WHY),
    "PUT /v1/moderation/users/{user_id}/hidden": moderators(204, WHY),
    "PUT /v1/moderation/users/{user_id}/shown": moderators(204, WHY),
    "GET /v1/users/me/following/{user_id}": Row(404, 200, 404, 404),
    "PUT /v1/users/me/following/{user_id}": Row(422, 204, 202, 404),
    "DELETE /v1/users/me/following/{user_id}": own(204, other=True),
    "DELETE /v1/users/me/followers/{user_id}": own(204, other=True),
    "PUT /v1/users/me/follow-requests/{user_id}": own(404, other=True),
    "DELETE /v1/users/me/follow-requests/{user_id}": own(204, other=True),
    "GET /v1/users/me/blocks/{user_id}": own(404, other=True),
    "PUT /v1/users/me/blocks/{user_id}": own(404, other=True),  # nobody has this id
    "DELETE /v1/users/me/blocks/{user_id}": own(204, other=True),
    "GET /v1/users/me/blocks": own(200),
    "GET /v1/users/me/follow-requests": own(200),
    "GET /v1/users/me/follow-requests/sent": own(200),
    "GET /v1/users/me/followers": own(200),
    "GET /v1/users/me/following": own(200),
    "GET /v1/users/me": own(200),
    "PATCH /v1/users/me": own(200, {}),
    "GET /v1/users/me/export": own(200),
    "PUT /v1/users/me/password": own(422, {}),
    "PUT /v1/users/me/picture": own(422, {"image_id": IMAGE}),
    "DELETE /v1/users/me/picture": own(204),
    "GET /v1/users": own(200, query="?username=nobody"),
    "GET /v1/feed": own(200),
    "GET /v1/tags/{tag}/posts": own(200),
    "GET /v1/notifications": own(200),
    "GET /v1/notifications/preferences": own(200),
    "PATCH /v1/notifications/preferences": own(200, {}),
    "PUT /v1/notifications/read": own(204, {"up_to": str(UUID(int=0))}),
    "POST /v1/posts": own(422, {"image_ids": [IMAGE]}),
    "POST /v1/images": own(415, {}),
    "POST /v1/images/uploads": own(201),
    "POST /v1/images/uploads/{upload_id}/complete": own(404),
    "GET /v1/images/{image_id}": own(404),
    "GET /v1/sessions": own(200),
    "DELETE /v1/sessions/current": own(204),
    "DELETE /v1/sessions/{session_id}": own(204),
    "DELETE /v1/posts/{post_id}/like": own(204),
    "DELETE /v1/comments/{comment_id}/like": own(204),
    "DELETE /v1/comments/{comment_id}": Row(204, 403, 404, 404),
    "DELETE /v1/posts/{post_id}": Row(204, 403, 404, 404),
    "DELETE /v1/sessions": own(204),
    "DELETE /v1/users/me": own(422, {}),
}
GATEWAY: Final = {"GET /v1/ws"}
"""The gateway answers it itself, by the token alone: tests/unit/gateway and tests/integration/gateway."""


def documented() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in json.loads(TARGET.read_text())["paths"].items():
        for method, operation in operations.items():
            yield f"{method.upper()} {path}", operation


SECURED: Final = {name: operation for name, operation in documented() if operation["security"]}
ROLES: Final = ("blocked", "stranger", "moderator", "follower", "owner")


def test_every_operation_that_needs_a_token_has_a_row() -> None:
    assert TABLE.keys() | GATEWAY == SECURED.keys()


async def test_everybody_gets_what_the_table_says(town: Town, bucket: str, tmp_path: Path) -> None:
    assert bucket
    town.apis["image"] = await town.house.start("image", **SMALL_IMAGES, spool_dir=tmp_path)
    who = {"owner": await town.user(private=True)} | {role: await town.user() for role in ROLES if role != "owner"}
    ada = who["owner"]
    assert await town.follow(who["follower"], ada) == 202
    assert await town.status("follow", "PUT", f"/v1/users/me/follow-requests/{who['follower']}", ada) == 204
    assert await town.block(ada, who["blocked"]) == 204
    post = await town.post(ada)
    made = await town.call("activity", "POST", f"/v1/posts/{post}/comments", ada, json={"text": "first"})
    names = {
        "user_id": ada,
        "author_id": ada,
        "post_id": post,
        "comment_id": made.json()["id"],
        "tag": TAG,
        "image_id": IMAGE,
        "upload_id": new_id(),
        "session_id": new_id(),
    }
    wrong: list[str] = []
    for name, row in TABLE.items():
        method, template = name.split(" ")
        path = template.format(**names | ({"user_id": OTHER} if row.other else {})) + row.query
        api = town.apis[SECURED[name]["tags"][0]]
        asked: dict[str, Any] = {"json": row.body} if row.body is not None else {}
        nobody: tuple[dict[str, str], ...] = (town.house.anonymous(), {})
        for head in nobody:
            status = (await api.request(method, path, headers=head, **asked)).status_code
            wrong += [f"{name} by nobody: {status}"] if status != 401 else []
        for role in ROLES:
            head = town.house.as_user(who[role], role=MODERATOR if role == "moderator" else "")
            answer = await api.request(method, path, headers=head, **asked)
            expected = getattr(row, role) or row.stranger
            if answer.status_code != expected:
                wrong.append(f"{name} by {role}: {answer.status_code}, not {expected}: {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)
