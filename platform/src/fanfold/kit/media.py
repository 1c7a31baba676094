"""Addresses of photos: for those that everybody may see for ever, for the others with a signature that expires.

``{base}/{media}/{width}.{format}?expires=<Unix seconds>&signature=<base64url>``. The signature is of the photo and the
second, so one is good for all variants, and it goes into the URI template that stands for them. The end is put up to a
full period (an hour) ahead of the next: all addresses made within one period are equal, and caches work.

A profile picture is seen by everybody and is not signed: `fanfold.image.visibility` has the rule.
"""

from __future__ import annotations

import base64
import binascii
import time
from typing import TYPE_CHECKING, Final, Literal

from fanfold.kit.keyring import Keyring

if TYPE_CHECKING:
    from fanfold.kit.settings import Settings

Signing = Literal["none", "private", "all"]
"""Which photos have addresses that expire: none, those that not everybody may see, or all but profile pictures."""

LABEL: Final = b"fanfold media signature v1"
_MAC_BYTES: Final = 16
_MOST_DIGITS: Final = 12


class MediaSigner:
    """Signs addresses of photos, and verifies them.

    Args:
        keys: Of the label `LABEL`.
        seconds: One period: an address is good for at least as long, and less than twice.
    """

    def __init__(self, keys: Keyring, seconds: int = 3600) -> None:
        self._keys = keys
        self._seconds = seconds

    def turns_at(self, now: float) -> int:
        """When the period ends: from then on addresses are others."""
        return (int(now) // self._seconds + 1) * self._seconds

    def query(self, media: str, now: float) -> str:
        """The signed part of an address."""
        expires = self.turns_at(now) + self._seconds
        mac = self._keys.sign(_message(media, expires))[:_MAC_BYTES]
        return f"expires={expires}&signature={base64.urlsafe_b64encode(mac).decode().rstrip('=')}"

    def seconds_left(self, media: str, expires: str, signature: str, now: float) -> int:
        """How long an address is still good for; 0 when it has expired, was changed or never was one."""
        if not (expires.isascii() and expires.isdigit() and len(expires) <= _MOST_DIGITS):
            return 0
        try:
            mac = base64.urlsafe_b64decode(signature + "==")
        except (binascii.Error, ValueError):
            return 0
        if len(mac) != _MAC_BYTES or not self._keys.verifies(_message(media, int(expires)), mac):
            return 0
        return max(0, int(expires) - int(now))


def _message(media: str, expires: int) -> bytes:
    return f"{media}.{expires}".encode()


class MediaUrls:
    """What services call their photos.

    Args:
        base: Prefix of all of them, the setting ``media_base_url``: a CDN's, or the gateway's own path.
        signer: Signs where it is needed; without one nothing is signed.
        everything: Whether photos of public accounts are signed too.
    """

    def __init__(self, base: str, signer: MediaSigner | None = None, *, everything: bool = False) -> None:
        self._base = base.rstrip("/")
        self._signer = signer
        self._everything = everything

    @classmethod
    def of(cls, settings: Settings) -> MediaUrls:
        """As the settings say."""
        signing = settings.signed_photos
        return cls(
            settings.media_base_url, None if signing == "none" else signer(settings), everything=signing == "all"
        )

    def closed(self, *, private: bool) -> bool:
        """Whether photos in posts of such an account are signed."""
        return self._signer is not None and (private or self._everything)

    def turns_at(self, now: float) -> float:
        """Until when (Unix seconds) addresses stay what they are."""
        return self._signer.turns_at(now) if self._signer is not None else float("inf")

    def open(self, path: str) -> str:
        """Of something that everybody may see. ``path``: as blobs carry it, a template or that of one variant."""
        return f"{self._base}/{path}"

    def signed(self, path: str) -> str:
        """Of something that not everybody may see, for somebody who may."""
        if self._signer is None:
            return self.open(path)
        return f"{self._base}/{path}?{self._signer.query(path.partition('/')[0], time.time())}"


def signer(settings: Settings) -> MediaSigner:
    """What signs and verifies, by the key that all services have."""
    return MediaSigner(Keyring(settings.secrets.read("identity_key"), LABEL), settings.signature_seconds)
