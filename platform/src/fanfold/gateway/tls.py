"""TLS on the traffic port, for installations without a load balancer that ends it. Certificates follow their files."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final

from fanfold.kit.logging import get_logger
from fanfold.kit.settings import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

log = get_logger(__name__)

POLL_SECONDS: Final = 5.0


class Certificates:
    """A server context whose certificate is read again when its files change.

    Handshakes after that get the new one; connections that are open go on undisturbed.

    Args:
        certificate: PEM file: the certificate, then its chain.
        key: PEM file of its private key.

    Raises:
        SettingsError: The pair cannot be used.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self.context = _server_context()
        self._stamp = self._look()
        try:
            self.context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"FANFOLD_TLS_CERTIFICATE and FANFOLD_TLS_KEY cannot be used: {error}") from error

    def reload(self) -> bool:
        """Read the files if they changed; whether they are in use now. A broken pair leaves the old one."""
        stamp = self._look()
        if stamp == self._stamp or not stamp:
            return False
        try:
            # Tried on a context of its own first: a half-written pair must not reach the one in use.
            _server_context().load_cert_chain(self._certificate, self._key)
            self.context.load_cert_chain(self._certificate, self._key)
        except (OSError, ssl.SSLError) as error:
            log.error("certificate_unusable", path=str(self._certificate), error=str(error))  # noqa: TRY400 - no bug of ours
            return False
        self._stamp = stamp
        log.info("certificate_loaded", path=str(self._certificate))
        return True

    async def run(self) -> None:
        """Follow the files for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self.reload()

    def _look(self) -> tuple[int, ...]:
        try:
            states = [path.stat() for path in (self._certificate, self._key)]
        except OSError:
            return ()
        return tuple(number for state in states for number in (state.st_mtime_ns, state.st_ino))


def _server_context() -> ssl.SSLContext:
    """TLS 1.2 and above, with Python's choice of ciphers (forward secrecy only); HTTP/1.1 by ALPN."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
