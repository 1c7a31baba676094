"""A user's picture: an image of the image service, of which the profile holds id and path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from fanfold.contracts import internal
from fanfold.contracts.blobs import ImageBlob

if TYPE_CHECKING:
    from uuid import UUID

    from fanfold.contracts.blobs import VariantsBlob
    from fanfold.kit.peers import Peers

WIDTH: Final = 320
"""Pixels wanted: twice what lists show, for dense screens."""
_FORMATS: Final = ("jpeg", "webp", "avif")
"""One URL stands for a picture, so the format that every client reads comes first."""

_decoder: msgspec.msgpack.Decoder[ImageBlob] = msgspec.msgpack.Decoder(ImageBlob)


def best_path(variants: VariantsBlob | None) -> str:
    """The variant for a profile picture: at least `WIDTH` wide if there is one, else the widest; empty without any."""
    if variants is None:
        return ""
    width = min((width for width in variants.widths if width >= WIDTH), default=max(variants.widths))
    return variants.path_of(width, min(variants.formats, key=_FORMATS.index))


class Pictures:
    """Asks the image service."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def claim(self, owner_id: UUID, image_id: UUID) -> str:
        """Keep the image for its owner's profile; its path, empty while variants are being made.

        Raises:
            PeerProblem: No such image, not this owner's, or it failed (422).
            Unavailable: The image service does not answer.
        """
        request = internal.ImageClaim(owner_id.bytes, [image_id.bytes])
        return _path(await self._peers.call(internal.CLAIM_IMAGES, request), image_id)

    async def path(self, image_id: UUID) -> str:
        """As `claim`, of an image claimed before; empty as well if it is gone."""
        return _path(await self._peers.call(internal.IMAGES, internal.Ids([image_id.bytes])), image_id)


def _path(answer: internal.Blobs, image_id: UUID) -> str:
    blob = answer.blobs.get(image_id.bytes)
    return best_path(_decoder.decode(blob).variants) if blob else ""
