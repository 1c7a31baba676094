"""What a visitor does: one function for each kind of request of a scenario's mix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from fanfold_loadtest.shapes import Variants

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from fanfold_loadtest.plan import Plan, Reader
    from fanfold_loadtest.traffic import Visit

PHONE_PIXELS: Final = 320
"""Width that a phone's grid of photos asks for."""


def feed(visit: Visit, plan: Plan, reader: Reader, chance: random.Random) -> None:
    """The newest of the home feed."""
    del plan, chance
    visit.send("GET", "/v1/feed", reader)


def timeline(visit: Visit, plan: Plan, reader: Reader, chance: random.Random) -> None:
    """The newest posts of somebody."""
    visit.send("GET", f"/v1/users/{chance.choice(plan.authors)}/posts", reader)


def post(visit: Visit, plan: Plan, reader: Reader, chance: random.Random) -> None:
    """One post, then its photo, which counts for itself."""
    body = visit.send("GET", f"/v1/posts/{chance.choice(plan.posts)}", reader)
    if body is not None:
        visit.follow_up("photo").send("GET", _photo(msgspec.json.decode(body)), reader)


def like(visit: Visit, plan: Plan, reader: Reader, chance: random.Random) -> None:
    """Like a post, or take the like back."""
    visit.send(chance.choice(("PUT", "DELETE")), f"/v1/posts/{chance.choice(plan.posts)}/like", reader)


def follow(visit: Visit, plan: Plan, reader: Reader, chance: random.Random) -> None:
    """Follow somebody, or follow them no longer; not the celebrity, whose followers other figures are about."""
    others = [author for author in plan.authors if author != reader.user_id]
    method = chance.choice(("PUT", "PUT", "DELETE"))
    visit.send(method, f"/v1/users/me/following/{chance.choice(others)}", reader)


def upload(visit: Visit, plan: Plan, reader: Reader, chance: random.Random) -> None:
    """Upload a photograph."""
    del chance
    visit.upload("/v1/images", plan.photo, reader)


ACTIONS: Final[dict[str, Callable[[Visit, Plan, Reader, random.Random], None]]] = {
    "feed": feed,
    "timeline": timeline,
    "post": post,
    "like": like,
    "follow": follow,
    "upload": upload,
}


def _photo(content: dict[str, Any]) -> str:
    """The variant that a phone would take: WebP, the narrowest of at least `PHONE_PIXELS`, or the widest there is."""
    variants = msgspec.convert(content["images"][0]["variants"], Variants)
    width = min((width for width in variants.widths if width >= PHONE_PIXELS), default=max(variants.widths))
    return variants.url_of(width, "webp")
