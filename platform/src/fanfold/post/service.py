"""Decisions of the post service: who may change what, and in which order rows, blobs and timelines change."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec

from fanfold.contracts import internal, keys
from fanfold.contracts.blobs import ImageBlob, PostBlob
from fanfold.contracts.events import PostCreated, PostDeleted
from fanfold.contracts.ids import id_millis
from fanfold.kit.errors import Forbidden, NotFound
from fanfold.kit.logging import get_logger
from fanfold.kit.outbox import Outbox
from fanfold.kit.preconditions import entity_tag
from fanfold.kit.valkey import ValkeyError
from fanfold.post import captions, repository
from fanfold.post.cache import PostCache, pack
from fanfold.post.models import Post, PostImage, outbox
from fanfold.post.repository import Stored
from fanfold.post.timelines import member

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from sqlmodel.ext.asyncio.session import AsyncSession

    from fanfold.kit.audience import Audience
    from fanfold.kit.db import Database
    from fanfold.kit.peers import Peers
    from fanfold.kit.preconditions import Precondition
    from fanfold.post.schemas import NewPost
    from fanfold.post.timelines import Timelines

log = get_logger(__name__)

DELETE_BATCH: Final = 100
"""Posts of a deleted account that go in one transaction."""

_images = msgspec.msgpack.Decoder(ImageBlob)
_posts = msgspec.msgpack.Decoder(PostBlob)


class PostService:
    """Rows first, then what readers see of them; events in the transaction of the rows.

    A process that dies between the two leaves work to the room's own events, which repeat it (`announce`, `retract`).
    """

    def __init__(
        self, database: Database, cache: PostCache, timelines: Timelines, peers: Peers, audience: Audience
    ) -> None:
        self._database = database
        self._audience = audience
        self._cache = cache
        self._timelines = timelines
        self._peers = peers
        self._outbox = Outbox(outbox)

    async def create(self, post_id: UUID, author_id: UUID, new: NewPost) -> PostBlob:
        """Make a post; if it was made already (a repeated request), it stays as it is.

        Raises:
            PeerProblem: 422: an image is not there, somebody else's, or could not be read.
            Unavailable: The image service does not answer.
        """
        claim = internal.ImageClaim(author_id.bytes, [image.bytes for image in new.image_ids], post_id.bytes)
        images = _decoded((await self._peers.call(internal.CLAIM_IMAGES, claim)).blobs)
        stored = _new(post_id, author_id, new)
        async with self._database.transaction() as session:
            if await repository.add(session, stored, captions.tags(new.caption)):
                mentioned = captions.mentions(new.caption)
                event = PostCreated(post_id=post_id, author_id=author_id, mentioned_usernames=mentioned)
                await self._outbox.add(session, event)
            else:
                [stored] = await repository.find(session, [post_id])
        blob = pack(stored, images)
        try:
            await asyncio.gather(self._cache.put([blob]), self._timelines.add(post_id, author_id))
        except ValkeyError as error:  # the post is made: a failure told now would have it made again
            log.warning("new_post_not_cached", error=str(error))
        return blob

    async def edit(self, post_id: UUID, user_id: UUID, caption: str, expected: Precondition) -> str:
        """Change the caption; the tag of what it is now. Readers see it when this returns.

        Raises:
            NotFound: No such post, as far as the user is told.
            Forbidden: It is somebody else's, or moderators have hidden it.
            PreconditionFailed: The caption is not the one expected.
        """
        async with self._own(post_id, user_id) as (session, post):
            if post.hidden_at is not None:
                raise Forbidden("Moderators have hidden this post: you can delete it, not change it.", kind="hidden")
            expected.check(entity_tag(post.caption))
            await repository.change_caption(session, post_id, caption, captions.tags(caption), datetime.now(UTC))
        await self._rewrite([post_id])
        return entity_tag(caption)

    async def delete(self, post_id: UUID, user_id: UUID) -> None:
        """Delete a post. No read that begins after this returns shows it.

        Raises:
            NotFound: No such post, as far as the user is told.
            Forbidden: It is somebody else's.
        """
        async with self._own(post_id, user_id) as (session, _):
            await self._remove(session, [post_id], user_id)
        await self.retract(post_id, user_id)

    async def delete_all(self, author_id: UUID) -> None:
        """Delete all posts of an account. Safe to repeat."""
        while True:
            async with self._database.transaction() as session:
                post_ids = await repository.some_of_author(session, author_id, DELETE_BATCH)
                if not post_ids:
                    break
                await self._remove(session, post_ids, author_id)
            await self._cache.bury(post_ids)
        await self._timelines.drop(author_id)

    async def announce(self, post_id: UUID, author_id: UUID) -> None:
        """Put a committed post on its author's timeline, unless it was deleted since. Safe to repeat."""
        if await self._cache.read(post_id) != keys.TOMBSTONE:
            await self._timelines.add(post_id, author_id)

    async def retract(self, post_id: UUID, author_id: UUID) -> None:
        """Hide a post whose row is gone. Safe to repeat."""
        await asyncio.gather(self._cache.bury([post_id]), self._timelines.remove(post_id, author_id))

    async def image_changed(self, image_id: UUID) -> None:
        """Show an image as the image service now tells it, in all posts. Safe to repeat."""
        async with self._database.transaction() as session:
            post_ids = await repository.touch_image(session, image_id)
        for start in range(0, len(post_ids), internal.MAX_BATCH):
            await self._rewrite(post_ids[start : start + internal.MAX_BATCH])

    async def blobs(self, ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """Packed posts that exist and are not hidden, by id; written to Valkey for the next reader.

        Raises:
            Unavailable: The image service does not answer.
        """
        async with self._database.reading() as session:
            stored = await repository.find(session, [UUID(bytes=post_id) for post_id in ids])
        return await self._cache.refill(await self._packed(stored))

    async def found(self, post_id: UUID) -> tuple[bytes, str]:
        """A post's id with its author's, and the tag of what may be edited of it.

        Raises:
            NotFound: No such post, or it is hidden.
            Unavailable: As `blobs`.
        """
        post = await self._read(post_id)
        return member(post_id, UUID(bytes=post.author_id)), entity_tag(post.caption)

    async def author(self, post_id: UUID) -> UUID:
        """A post's author; errors as `found`."""
        return UUID(bytes=(await self._read(post_id)).author_id)

    async def _read(self, post_id: UUID) -> PostBlob:
        blob = await self._cache.read(post_id)
        if blob is None:
            blob = (await self.blobs([post_id.bytes])).get(post_id.bytes, keys.TOMBSTONE)
        if blob == keys.TOMBSTONE:
            raise _not_found()
        return _posts.decode(blob)

    async def stored(self, post_id: UUID) -> tuple[PostBlob, bool]:
        """A post as its row tells it, for who may see hidden ones too; whether it is hidden.

        Raises:
            NotFound: No such post.
            Unavailable: As `blobs`.
        """
        async with self._database.reading() as session:
            stored = await repository.find(session, [post_id], hidden=True)
        if not stored:
            raise _not_found()
        return (await self._packed(stored))[0], stored[0].post.hidden_at is not None

    @asynccontextmanager
    async def _own(self, post_id: UUID, user_id: UUID) -> AsyncIterator[tuple[AsyncSession, Post]]:
        """A transaction that holds the user's own post.

        That it is somebody else's is told to those only who may see it.
        """
        try:
            async with self._database.transaction() as session:
                yield session, _owned(await repository.lock(session, post_id), user_id)
        except _OthersError as error:
            if error.hidden or not await self._audience.admits(user_id, error.author_id):
                raise _not_found() from None
            raise Forbidden("Only its author may change a post.") from None

    async def _rewrite(self, post_ids: Sequence[UUID]) -> None:
        """Write blobs from what the rows and the image service say now: after the commit, so that nothing is missed."""
        async with self._database.reading() as session:
            stored = await repository.find(session, post_ids)
        await self._cache.put(await self._packed(stored))

    async def _packed(self, stored: Collection[Stored]) -> list[PostBlob]:
        wanted = list({shown.image_id.bytes: None for one in stored for shown in one.images})
        images: dict[bytes, ImageBlob] = {}
        for start in range(0, len(wanted), internal.MAX_BATCH):
            batch = internal.Ids(wanted[start : start + internal.MAX_BATCH])
            images.update(_decoded((await self._peers.call(internal.IMAGES, batch)).blobs))
        return [pack(one, images) for one in stored]

    async def _remove(self, session: AsyncSession, post_ids: Sequence[UUID], author_id: UUID) -> None:
        removed = await repository.remove(session, post_ids)
        events = [
            PostDeleted(post_id=post_id, author_id=author_id, image_ids=images) for post_id, images in removed.items()
        ]
        if events:
            await self._outbox.add(session, *events)


def _new(post_id: UUID, author_id: UUID, new: NewPost) -> Stored:
    created = datetime.fromtimestamp(id_millis(post_id) / 1000, UTC)
    texts = dict(enumerate(new.alt_texts))
    return Stored(
        Post(id=post_id, author_id=author_id, caption=new.caption, created_at=created),
        [
            PostImage(post_id=post_id, position=position, image_id=image_id, alt_text=texts.get(position, ""))
            for position, image_id in enumerate(new.image_ids)
        ],
    )


def _owned(post: Post | None, user_id: UUID) -> Post:
    if post is None:
        raise _not_found()
    if post.author_id != user_id:
        raise _OthersError(post.author_id, hidden=post.hidden_at is not None)
    return post


class _OthersError(Exception):
    """The post is another's; whether that may be told is asked when its row is let go."""

    def __init__(self, author_id: UUID, *, hidden: bool) -> None:
        super().__init__()
        self.author_id = author_id
        self.hidden = hidden


def _not_found() -> NotFound:
    return NotFound("There is no such post.", kind="post-not-found")


def _decoded(blobs: Mapping[bytes, bytes]) -> dict[bytes, ImageBlob]:
    return {image_id: _images.decode(blob) for image_id, blob in blobs.items()}
