"""Command line of the image build."""

from __future__ import annotations

import argparse
import fcntl
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from images.builder.catalogue import OUT, BuildError, Image, digest, read_stamp, select, version, write_stamp
from images.builder.engines import Buildah, Docker, Engine
from images.builder.steps import Progress, build_context, build_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_LIMIT = 1800
"""Seconds to wait for another build of this checkout."""


def build(image: Image, engine: Engine, inputs: str, *, fresh: bool) -> None:
    """Build one image, write its archive, then its stamp: a stopped build is never taken for a finished one."""
    progress = Progress(image.name)
    image.stamp.unlink(missing_ok=True)
    identity = OUT / f"{image.name}.id"
    arguments = {**image.arguments, **{name: engine.base(key) for name, key in image.bases.items()}}
    labels = {"title": image.name, "version": version(), "licenses": "Apache-2.0", "vendor": "Fanfold"}
    flags = [f"--tag={image.reference}", f"--iidfile={identity}"]
    flags += [f"--target={image.target}"] if image.target else []
    flags += [f"--build-arg={name}={value}" for name, value in arguments.items()]
    flags += [f"--label=org.opencontainers.image.{name}={value}" for name, value in labels.items()]
    flags += ["--no-cache"] if fresh else []
    with build_context(image) as context, build_secrets() as secrets:
        engine.build([f"--file={context}/images/{image.folder}/Containerfile", *flags, *secrets], context, progress)
    partial = image.archive.with_suffix(".tar.partial")
    partial.unlink(missing_ok=True)
    engine.save(image.reference, partial, progress)
    partial.replace(image.archive)
    write_stamp(image, inputs, identity.read_text().strip())
    progress.say(f"{image.archive.stat().st_size / 1e6:.0f} MB in {image.archive}")


def choose(name: str, *, fresh: bool) -> Engine:
    """The engine asked for; Docker where one answers, else buildah."""
    if name == "docker" or (name == "auto" and Docker.answers()):
        return Docker()
    return Buildah(fresh=fresh)


@contextmanager
def only_one() -> Iterator[None]:
    """Keep two builds of one checkout apart.

    Raises:
        BuildError: The other one does not end.
    """
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / "lock").open("w") as lock:
        deadline = time.monotonic() + LOCK_LIMIT
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BuildError(f"another build holds {lock.name} for over {LOCK_LIMIT} s") from None
                time.sleep(0.5)
        yield


def list_images(images: list[Image]) -> None:
    """Print name, reference, archive and digest of the inputs, ``-`` for an image that is not built."""
    for image in images:
        inputs = (read_stamp(image) or {}).get("inputs", "-")
        print(image.name, image.reference, image.archive, inputs)  # noqa: T201 - the program's output


def build_changed(images: list[Image], engine: Engine, *, fresh: bool) -> None:
    """Build what changed since its archive was written."""
    pending = []
    for image in images:
        inputs, stamp = digest(image, engine.name), read_stamp(image)
        if fresh or not stamp or stamp["inputs"] != inputs:
            pending.append((image, inputs))
        else:
            print(f"images: {image.name}: unchanged")  # noqa: T201 - the program's output
    if pending:
        engine.prepare()
    for image, inputs in pending:
        build(image, engine, inputs, fresh=fresh)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="images/build.sh",
        description="Build the images that changed, as archives for `ctr images import` and `kind load image-archive`: "
        ".build/images/NAME.tar.",
    )
    parser.add_argument("names", nargs="*", help="images to build; without names, all")
    engines = ("auto", "docker", "buildah")
    parser.add_argument("--engine", choices=engines, default="auto", help="auto: Docker where an engine answers")
    parser.add_argument("--fresh", action="store_true", help="use no cache: new bases and packages, security updates")
    parser.add_argument("--list", action="store_true", help="print name, reference, archive and digest; build nothing")
    return parser.parse_args()


def main() -> None:
    """Exit 1 with a sentence when a build fails."""
    options = parse()
    try:
        images = select(options.names)
        if options.list:
            list_images(images)
            return
        with only_one():
            build_changed(images, choose(options.engine, fresh=options.fresh), fresh=options.fresh)
    except BuildError as error:
        sys.exit(f"images: {error}")


if __name__ == "__main__":
    main()
