"""The two ways to build: Docker on public bases, buildah on a Debian put together from packages."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from images.builder.catalogue import OUT, REPOSITORY, ROOT, BuildError
from images.builder.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SUITE: Final = "trixie"


class Engine(Protocol):
    """What differs between the builders."""

    name: str

    def prepare(self) -> None:
        """Install or check the tools.

        Raises:
            BuildError: One is missing; the message says how to get it.
        """

    def base(self, key: str) -> str:
        """Reference of the base image, which is made first where no registry has it."""

    def build(self, flags: Sequence[str], context: Path, progress: Progress) -> None:
        """Build and tag as the flags say."""

    def save(self, reference: str, archive: Path, progress: Progress) -> None:
        """Write the image as an archive in Docker's format."""


class Docker:
    """BuildKit, on public base images."""

    name = "docker"
    bases: ClassVar = {
        "debian": f"docker.io/library/debian:{SUITE}-slim",
        "python": f"docker.io/library/python:3.13-slim-{SUITE}",
        "go": f"docker.io/library/golang:1.26-{SUITE}",
    }

    @staticmethod
    def answers() -> bool:
        """Whether there is an engine behind the client."""
        command = ["docker", "version", "--format", "{{.Server.Version}}"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=10, check=False)  # noqa: S603 - fixed command
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0

    def prepare(self) -> None:
        """Check that an engine answers."""
        if not self.answers():
            raise BuildError("no Docker engine answers: start it, or build with --engine buildah as root")

    def base(self, key: str) -> str:
        """A public image."""
        return self.bases[key]

    def build(self, flags: Sequence[str], context: Path, progress: Progress) -> None:
        """Build with BuildKit, which knows secrets and cache mounts."""
        progress.run("build", ["env", "DOCKER_BUILDKIT=1", "docker", "build", "--progress=plain", *flags, str(context)])

    def save(self, reference: str, archive: Path, progress: Progress) -> None:
        """Export from the engine's storage."""
        progress.run("archive", ["docker", "save", f"--output={archive}", reference])


class Buildah:
    """buildah as root in chroot isolation: no engine, no registry, no nested namespaces."""

    name = "buildah"
    build_flags = ("--isolation=chroot", "--pull-never", "--layers", "--format=docker")
    # minbase has no init and no recommended packages; the rest is for readers of a shell, or for other languages.
    debian = (
        *("mmdebstrap", "--variant=minbase", "--include=ca-certificates,tzdata"),
        *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "info", "locale", "lintian")),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        # mmdebstrap lends the new system this machine's name and resolver; they must not travel with the image.
        *("--customize-hook=cd $1 && rm -rf etc/resolv.conf etc/hostname var/cache/debconf/*-old var/log/*", SUITE),
    )
    sources = (
        f"deb http://deb.debian.org/debian {SUITE} main",
        f"deb http://deb.debian.org/debian {SUITE}-updates main",
        f"deb http://deb.debian.org/debian-security {SUITE}-security main",
    )

    def __init__(self, *, fresh: bool = False) -> None:
        self.fresh = fresh
        self._made: dict[str, str] = {}
        self._volumes: list[str] = []

    def prepare(self) -> None:
        """Check for root and install what is missing."""
        if os.geteuid() != 0:
            raise BuildError("no Docker engine answers, and buildah needs root here: start Docker, or run this as root")
        missing = [tool for tool in ("buildah", "mmdebstrap") if not shutil.which(tool)]
        if missing:
            _install(missing)

    def base(self, key: str) -> str:
        """One of our own bases, made on first use and kept in buildah's storage."""
        if key not in self._made:
            make = {"debian": self._debian, "python": self._python, "go": self._go}[key]
            self._made[key] = make()
        return self._made[key]

    def build(self, flags: Sequence[str], context: Path, progress: Progress) -> None:
        """Build with a cache of layers."""
        progress.run("build", ["buildah", "bud", *self.build_flags, *self._volumes, *flags, str(context)])

    def save(self, reference: str, archive: Path, progress: Progress) -> None:
        """Export from buildah's storage."""
        progress.run("archive", ["buildah", "push", "--quiet", reference, f"docker-archive:{archive}:{reference}"])

    def _debian(self) -> str:
        recipe = (*self.debian, *self.sources)
        reference = _base_reference("debian", " ".join(recipe))
        if self.fresh or not _exists(reference):
            progress = Progress("base-debian")
            archive = OUT / "base-debian.tar"
            progress.run("bootstrap", [*self.debian, str(archive), *self.sources])
            containerfile = OUT / "base-debian.Containerfile"
            containerfile.write_text(f'FROM scratch\nADD {archive.name} /\nCMD ["/bin/sh"]\n')
            flags = (*self.build_flags, "--no-cache", f"--tag={reference}", f"--file={containerfile}")
            progress.run("image", ["buildah", "bud", *flags, str(OUT)])
            archive.unlink()
        return reference

    def _python(self) -> str:
        debian = self.base("debian")
        containerfile = ROOT / "images" / "bases" / "python.Containerfile"
        reference = _base_reference("python", debian + containerfile.read_text())
        if self.fresh or not _exists(reference):
            flags = (*self.build_flags, f"--build-arg=DEBIAN={debian}", f"--tag={reference}", f"--file={containerfile}")
            Progress("base-python").run("image", ["buildah", "bud", *flags, str(containerfile.parent)])
        return reference

    def _go(self) -> str:
        """Debian with this machine's Go lent at the place where the public image has its own."""
        go = shutil.which("go") or shutil.which("go", path=str(ROOT / ".build" / "bin"))
        if not go:
            raise BuildError("the object store is built from Go source: install Go 1.25 or newer, or start Docker")
        command = [go, "env", "GOROOT"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)  # noqa: S603 - fixed command
        self._volumes = [f"--volume={done.stdout.strip()}:/usr/local/go:ro"]
        return self.base("debian")


def _base_reference(name: str, recipe: str) -> str:
    return f"{REPOSITORY}-base/{name}:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def _exists(reference: str) -> bool:
    command = ["buildah", "inspect", "--type=image", "--format={{.FromImageID}}", reference]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0  # noqa: S603 - own names


def _install(tools: list[str]) -> None:
    if not shutil.which("apt-get"):
        raise BuildError(f"{' and '.join(tools)} missing: install them with your package manager, or start Docker")
    progress = Progress("tools")
    apt = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300")
    progress.run("package lists", [*apt, "update"])
    packages = [*tools, "debian-archive-keyring"]
    progress.run(f"install {' '.join(tools)}", [*apt, "install", "-y", "--no-install-recommends", *packages])
