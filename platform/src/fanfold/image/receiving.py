"""Receiving one file of a multipart form: streamed to disk as it comes, hashed on the way, within limits."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from fanfold.kit.errors import BadRequest, Problem, TooLarge, Unprocessable, UnsupportedMedia

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from starlette.requests import Request

FIELD: Final = "file"
FORM_OVERHEAD: Final = 64 << 10
"""For boundaries, part headers and other fields, beyond the file itself."""
WRITE_BYTES: Final = 512 << 10
"""Gathered before a thread writes them: the memory of one upload."""


class RequestTimeout(Problem):
    """The client sends too slowly."""

    status = 408
    kind = "request-timeout"


@dataclass(frozen=True, slots=True)
class Received:
    """A file on disk: bytes and their SHA-256 in hex."""

    size: int
    sha256: str


@contextmanager
def spooled(folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A temporary file, open for writing, and its path; gone after the block."""
    with NamedTemporaryFile(dir=folder, prefix="fanfold-image-") as file:
        yield cast("BinaryIO", file), Path(file.name)


def measure(path: Path) -> Received:
    """Size and hash of a whole file; reads it, so call it in a thread."""
    with path.open("rb") as file:
        return Received(size=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


class HashingWriter:
    """Writes to a file in threads and hashes what it writes.

    Args:
        file: Open for writing.
        limit: Most bytes.
    """

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._limit = limit
        self._sha256 = hashlib.sha256()
        self._buffer = bytearray()
        self._size = 0

    def add(self, data: bytes) -> None:
        """Take bytes into the buffer.

        Raises:
            TooLarge: Over the limit.
        """
        self._size += len(data)
        if self._size > self._limit:
            raise TooLarge(f"The file is over {self._limit:,} bytes: make it smaller.")
        self._buffer += data

    async def flush(self, least: int = 1) -> None:
        """Write the buffer if it holds ``least`` bytes."""
        if len(self._buffer) >= least:
            data, self._buffer = bytes(self._buffer), bytearray()
            await asyncio.to_thread(self._write, data)

    def _write(self, data: bytes) -> None:
        self._sha256.update(data)
        self._file.write(data)

    async def finish(self) -> Received:
        """Write what is left; the file is complete."""
        await self.flush()
        await asyncio.to_thread(self._file.flush)
        return Received(size=self._size, sha256=self._sha256.hexdigest())


class _FilePart:
    """Callbacks of the parser: hands the bytes of the part named `FIELD` to ``writer``, drops other parts."""

    def __init__(self, writer: HashingWriter) -> None:
        self._writer = writer
        self._name = b""
        self._value = b""
        self._inside = False
        self.files = 0
        self.ended = False

    def on_part_begin(self) -> None:
        self._inside = False

    def on_header_begin(self) -> None:
        self._name = self._value = b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._inside = options.get(b"name") == FIELD.encode()
            self.files += self._inside

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._inside and self.files == 1:
            self._writer.add(data[start:end])

    def on_end(self) -> None:
        self.ended = True


async def receive(request: Request, file: BinaryIO, limit: int, seconds: float) -> Received:
    """Write the form's file to ``file``, at most ``limit`` bytes, within ``seconds``.

    Raises:
        UnsupportedMedia: The body is no multipart form.
        TooLarge: The file, or all of the form, is over the limit.
        BadRequest: The form is malformed or broke off.
        Unprocessable: No field `FIELD`, or more than one.
        RequestTimeout: Not all came in time.
    """
    boundary = _boundary(request.headers)
    if int(request.headers.get("content-length") or 0) > limit + FORM_OVERHEAD:
        raise TooLarge(f"The file is over {limit:,} bytes: make it smaller.")
    writer = HashingWriter(file, limit)
    part = _FilePart(writer)
    callbacks = {name: getattr(part, name) for name in dir(part) if name.startswith("on_")}
    try:
        parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]  # a TypedDict of these names
        async with asyncio.timeout(seconds):
            await _feed(request, parser, writer, limit + FORM_OVERHEAD)
    except TimeoutError as error:
        raise RequestTimeout(f"The file did not arrive within {seconds:g} s.") from error
    except (FormParserError, ClientDisconnect) as error:
        raise BadRequest("The multipart form is malformed or broke off: send it again.") from error
    if not part.ended:
        raise BadRequest("The multipart form broke off: send it again.")
    if part.files != 1:
        raise Unprocessable(f"Send exactly one file, in the field {FIELD!r}; {part.files} were sent.")
    return await writer.finish()


def _boundary(headers: Mapping[str, str]) -> bytes:
    kind, options = parse_options_header(headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise UnsupportedMedia(f"Send multipart/form-data with the picture in the field {FIELD!r}.")
    if not options.get(b"boundary"):
        raise BadRequest("The content type lacks the form's boundary.")
    return options[b"boundary"]


async def _feed(request: Request, parser: MultipartParser, writer: HashingWriter, limit: int) -> None:
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limit:
            raise TooLarge(f"The form is over {limit:,} bytes.")
        parser.write(chunk)
        await writer.flush(WRITE_BYTES)
    parser.finalize()
