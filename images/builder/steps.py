"""Running build tools: progress, logs and limits; what a build may see, and this machine's way to package indexes."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from images.builder.catalogue import OUT, ROOT, BuildError, Image, input_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STEP_LIMIT: Final = 1800
"""Seconds for one step; the longest, a cold Go build on two cores, takes a tenth of it."""

INDEX_VARIABLES: Final = (
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX"),
    *("GOPROXY", "GONOSUMDB", "GOSUMDB", "GOPRIVATE", "GOINSECURE"),
)
CA_VARIABLES: Final = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
CA_OF_DEBIAN: Final = "/etc/ssl/certs/ca-certificates.crt"


class Progress:
    """One line per stage with its seconds; what the tools print goes to a log."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.log = OUT / f"{subject}.log"
        self.log.unlink(missing_ok=True)

    def run(self, stage: str, command: Sequence[str]) -> None:
        """Run a command to its end.

        Raises:
            BuildError: It failed or took longer than the limit; the message ends with the log's last lines.
        """
        started = time.monotonic()
        with self.log.open("a") as log:
            log.write(f"$ {shlex.join(command)}\n")
            log.flush()
            try:
                code = subprocess.run(command, stdout=log, stderr=log, timeout=STEP_LIMIT, check=False).returncode  # noqa: S603 - our own command lines
            except subprocess.TimeoutExpired as error:
                raise BuildError(f"{self.subject}: {stage} took over {STEP_LIMIT} s; see {self.log}") from error
        if code:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise BuildError(f"{self.subject}: {stage} failed; see {self.log}, which ends with:\n{tail}")
        self.say(f"{stage} {time.monotonic() - started:.1f} s")

    def say(self, text: str) -> None:
        """Print one line about the subject."""
        print(f"images: {self.subject}: {text}", flush=True)  # noqa: T201 - the program's output


@contextmanager
def build_context(image: Image) -> Iterator[Path]:
    """A folder with the inputs and nothing else, so that the digest covers whatever the build can see."""
    with tempfile.TemporaryDirectory(prefix="context-", dir=OUT) as folder:
        for file in input_files(image):
            copy = Path(folder) / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
            os.utime(copy, (0, 0))  # equal content gives equal layers
        yield Path(folder)


@contextmanager
def build_secrets() -> Iterator[list[str]]:
    """Lend the build this machine's way to the package indexes; secrets of a build are not stored in the image.

    Yields:
        ``--secret`` flags: ``ca``, a bundle of certificates (a proxy's among them), and ``env``, a script of exports.
    """
    exports = {name: os.environ[name] for name in INDEX_VARIABLES if os.environ.get(name)}
    bundle = Path(next((os.environ[name] for name in CA_VARIABLES if os.environ.get(name)), CA_OF_DEBIAN))
    with tempfile.TemporaryDirectory(prefix="secrets-", dir=OUT) as folder:
        flags = ["--secret", f"id=env,src={folder}/env"]
        if bundle.is_file():
            flags += ["--secret", f"id=ca,src={bundle}"]
            exports |= {"SSL_CERT_FILE": "/run/secrets/ca", "PIP_CERT": "/run/secrets/ca"}
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in exports.items()]
        (Path(folder) / "env").write_text("".join(lines))
        yield flags
