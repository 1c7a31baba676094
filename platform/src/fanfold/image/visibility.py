"""Which photos everybody may see who has their address. The others are for those who were given a signed one.

A photo is shown while its owner's account is neither hidden nor deleted, and it is the owner's profile picture or
stands in a post of a public account that is neither hidden nor deleted. What nothing shows (a photo just uploaded, one
whose post is gone) is its owner's.

The rows say what shows a photo, and the blobs of users and posts who may see that, as every other read of them is told.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from fanfold.contracts import internal, keys
from fanfold.image import repository
from fanfold.kit.errors import Problem
from fanfold.kit.flight import SingleFlight
from fanfold.kit.valkey import ValkeyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fanfold.image.models import Image
    from fanfold.kit.db import Database
    from fanfold.kit.media import MediaUrls, Signing
    from fanfold.kit.peers import Peers
    from fanfold.kit.users import Users
    from fanfold.kit.valkey import Valkey

FRESH_SECONDS: Final = 5.0
"""So long a photo that was shown is taken for shown; that it is again is known at once."""
LIMIT: Final = 10_000
"""Photos remembered."""


class Verdict(NamedTuple):
    """``shown``: to everybody. ``picture``: on its owner's profile."""

    shown: bool
    picture: bool


class Visibility:
    """Judges photos.

    Args:
        database: The room's.
        valkey: Where the post service keeps blobs.
        peers: How to reach it.
        users: Who is there, and who is private.
        signing: As the settings say.
    """

    def __init__(self, database: Database, valkey: Valkey, peers: Peers, users: Users, signing: Signing) -> None:
        self._database = database
        self._valkey = valkey
        self._peers = peers
        self._users = users
        self._signing = signing
        self._shown: dict[str, tuple[float, Verdict]] = {}
        self._flights: SingleFlight[Verdict] = SingleFlight()

    async def needs_signature(self, media: str) -> bool:
        """Whether the photo under this path is served to signed addresses only.

        Raises:
            Unavailable: An owner does not answer, and the photo is not one that was shown lately.
            ValkeyUnavailableError: The same of Valkey.
        """
        if self._signing == "none":
            return False
        until, verdict = self._shown.get(media, (0.0, None))
        if verdict is None or until < time.monotonic():
            try:
                verdict = await self._flights.do(media, lambda: self._judge(media))
            except (Problem, ValkeyError):
                if verdict is None:
                    raise
        return self._signed(verdict)

    async def shown(self, media: str) -> bool:
        """Whether everybody may see the photo now; errors as `needs_signature`."""
        return self._signing == "none" or (await self._flights.do(media, lambda: self._judge(media))).shown

    def _signed(self, verdict: Verdict) -> bool:
        return not verdict.shown or (self._signing == "all" and not verdict.picture)

    async def _judge(self, media: str) -> Verdict:
        async with self._database.reading() as session:
            found = await repository.shown_by(session, media, internal.MAX_BATCH)
        if found is None:
            return Verdict(shown=True, picture=True)  # nothing is there to be kept from anybody
        owner_id, uses = found
        verdict = await self._of_uses(owner_id, uses)
        self._shown.pop(media, None)
        if verdict.shown:
            if len(self._shown) >= LIMIT:
                del self._shown[next(iter(self._shown))]
            self._shown[media] = (time.monotonic() + FRESH_SECONDS, verdict)
        return verdict

    async def _of_uses(self, owner_id: UUID, uses: Sequence[UUID]) -> Verdict:
        picture = owner_id in uses
        owner = (await self._users.blobs([owner_id])).get(owner_id)
        if owner is None:
            return Verdict(shown=False, picture=picture)
        if picture:
            return Verdict(shown=True, picture=True)
        return Verdict(shown=not owner.private and await self._posted(uses), picture=False)

    async def _posted(self, post_ids: Sequence[UUID]) -> bool:
        """Whether one of these posts is there and not hidden."""
        blobs = await self._valkey.all([("GET", keys.post(post_id)) for post_id in post_ids])
        if any(blobs):
            return True
        missing = [post_id.bytes for post_id, blob in zip(post_ids, blobs, strict=True) if blob is None]
        return bool(missing and (await self._peers.call(internal.POSTS, internal.Ids(missing))).blobs)


class Addresses:
    """What a picture is called in answers to those who may see it."""

    def __init__(self, visibility: Visibility, urls: MediaUrls) -> None:
        self._visibility = visibility
        self._urls = urls

    async def shown(self, image: Image) -> bool:
        """Whether everybody may see it; errors as `Visibility.needs_signature`."""
        return await self._visibility.shown(image.media)

    async def of(self, image: Image, path: str) -> str:
        """The address of its variants, a template: a signed one is good in any case, so also when none can be told."""
        try:
            signed = await self._visibility.needs_signature(image.media)
        except (Problem, ValkeyError):
            signed = True
        return self._urls.signed(path) if signed else self._urls.open(path)
