"""The archive of an account, made as it is read: a JSON file for each kind of thing, and the photos as they were sent.

Rows and photos are asked of their rooms while the client takes the archive in, page by page and piece by piece, so that
an account of any size needs the memory of one. If a room stops answering on the way the connection ends without the
archive's end: half an archive does not look like a whole one.
"""

from __future__ import annotations

import asyncio
import io
import zipfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec

from fanfold.contracts import exports
from fanfold.kit import deadline
from fanfold.kit.errors import Unavailable
from fanfold.kit.peers import PeerProblem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fanfold.kit.peers import Peers

AT_ONCE: Final = 4
"""Archives one replica makes at once; each compresses on one core now and then."""


class _Image(msgspec.Struct):
    """What is needed of a row of the part ``images``."""

    id: UUID


_image = msgspec.json.Decoder(_Image)


class _Sink(io.RawIOBase):
    """Takes what the archive writes until it is sent on. It cannot seek, so sizes stand behind the files."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: object) -> int:
        """Keep a copy."""
        piece = bytes(memoryview(data))  # type: ignore[arg-type]  # a buffer of any kind
        self._parts.append(piece)
        return len(piece)

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


class Archives:
    """Makes archives.

    Args:
        peers: How to reach the rooms, this one included.
    """

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._under_way = 0

    async def begin(self, user_id: UUID) -> AsyncIterator[bytes]:
        """The archive's bytes. Every room has answered once when this returns.

        Raises:
            Unavailable: A room does not answer, or enough archives are being made already.
        """
        if self._under_way >= AT_ONCE:
            raise Unavailable("Enough archives are being made here; try again in a minute.", retry_after=60)
        await asyncio.gather(*(self._rows(room, parts[0], user_id, b"") for room, parts in exports.PARTS.items()))
        return self._counted(user_id)

    async def _counted(self, user_id: UUID) -> AsyncIterator[bytes]:
        self._under_way += 1
        try:
            # The deadline is that of the answer's head; rooms are asked long after it.
            deadline.current.set(b"")
            sink = _Sink()
            with zipfile.ZipFile(sink, "w", compresslevel=3) as archive:
                async for _ in self._write(archive, user_id):
                    yield sink.take()
            yield sink.take()
        finally:
            self._under_way -= 1

    async def _write(self, archive: zipfile.ZipFile, user_id: UUID) -> AsyncIterator[None]:
        """Write everything, with a pause after each piece."""
        photos: list[UUID] = []
        for room, parts in exports.PARTS.items():
            for part in parts:
                with archive.open(_entry(f"{part}.json", zipfile.ZIP_DEFLATED), "w") as file:
                    separator = b"["
                    async for rows in self._pages(room, part, user_id):
                        photos += [_image.decode(row).id for row in rows if part == "images"]
                        await asyncio.to_thread(file.write, separator + b",\n".join(rows))
                        separator = b",\n"
                        yield
                    file.write(b"]" if separator != b"[" else b"[]")
        for image_id in photos:
            piece = await self._piece(user_id, image_id, 0)
            if not piece.size:
                continue  # deleted since it was listed
            with archive.open(_entry(f"photos/{piece.name}", zipfile.ZIP_STORED), "w") as file:
                file.write(piece.data)
                yield
                done = len(piece.data)
                while done < piece.size:
                    piece = await self._piece(user_id, image_id, done)
                    if not piece.data:
                        raise Unavailable("A photo was deleted while it was read; try again.")
                    file.write(piece.data)
                    done += len(piece.data)
                    yield

    async def _pages(self, room: str, part: str, user_id: UUID) -> AsyncIterator[list[bytes]]:
        after = b""
        while True:
            found = await self._rows(room, part, user_id, after)
            if found.rows:
                yield found.rows
            after = found.after
            if not after:
                return

    async def _rows(self, room: str, part: str, user_id: UUID, after: bytes) -> exports.Rows:
        try:
            return await self._peers.call(exports.ROWS_OF[room], exports.RowsQuery(user_id.bytes, part, after))
        except PeerProblem as problem:  # of a version before this one
            raise Unavailable(f"The {room} service cannot give out what it holds now; try again later.") from problem

    async def _piece(self, user_id: UUID, image_id: UUID, offset: int) -> exports.Piece:
        return await self._peers.call(exports.PHOTO, exports.PieceQuery(user_id.bytes, image_id.bytes, offset))


def _entry(name: str, compression: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, datetime.now(UTC).timetuple()[:6])
    entry.compress_type = compression
    entry.external_attr = 0o600 << 16
    return entry
