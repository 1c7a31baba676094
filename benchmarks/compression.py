"""What it costs to compress a page of a feed, and what it saves: CPU time of one thread, and bytes, by way and level.

The page is one of twenty posts as the feed service answers it, with captions, names and counts that differ.

    uv run --with isal python benchmarks/compression.py
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
import zlib
from collections.abc import Callable
from typing import Any, Final

import brotli
import msgspec
from common.feeds import user_blob
from common.results import save, say

from fanfold.contracts.blobs import ImageBlob, PostBlob, VariantsBlob
from fanfold.contracts.ids import new_id
from fanfold.image.pictures import ENCODERS, WIDTHS
from fanfold.kit.fragments import Fragments, counts_json
from fanfold.kit.media import MediaUrls
from fanfold.kit.views import encode_page

try:
    from isal import isal_zlib
except ImportError:  # a peer, of no use to the platform itself
    isal_zlib = None

ROUNDS: Final = 200
POSTS: Final = 20
_CHANCE: Final = random.Random(11)
_WORDS: Final = [
    "morning",
    "lake",
    "light",
    "window",
    "bridge",
    "winter",
    "nobody",
    "again",
    "always",
    "coffee",
    "garden",
    "little",
    "yellow",
    "before",
    "after",
    "street",
    "river",
    "quiet",
    "friend",
    "summer",
    "cloud",
    "mountain",
    "train",
    "letter",
    "market",
    "corner",
    "silver",
    "evening",
    "forest",
    "harbour",
    "music",
    "bread",
    "stone",
    "children",
    "paper",
    "golden",
    "island",
    "story",
    "lantern",
    "meadow",
    "orchard",
    "rain",
    "shadow",
    "tower",
    "valley",
    "willow",
]
Compress = Callable[[bytes], bytes]


def page() -> bytes:
    """A page of a feed."""
    fragments = Fragments(MediaUrls("/v1/media"))
    posts = []
    for _ in range(POSTS):
        post_id, author = new_id().bytes, new_id()
        name = f"{_CHANCE.getrandbits(256):064x}"
        variants = VariantsBlob(f"{name}/{{width}}.{{format}}", list(WIDTHS), list(ENCODERS))
        hash_ = "".join(_CHANCE.choices("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijkl#$%*+,-.", k=28))
        photo = ImageBlob(new_id().bytes, _CHANCE.randrange(600, 4000), 3200, hash_, _text(6), variants)
        post = PostBlob(post_id, author.bytes, f"{_text(14)} #{_text(1)}", int(time.time() * 1000), [photo])
        made = fragments.posts.of(post_id, msgspec.msgpack.encode(post))
        user = fragments.authors.of(author.bytes, user_blob(author))
        counts = counts_json(_CHANCE.randrange(900), _CHANCE.randrange(90))
        posts.append(made.json(user, counts, liked=_CHANCE.random() < 0.2))
    return encode_page(posts, "x" * 32)


def _text(words: int) -> str:
    return " ".join(_CHANCE.choices(_WORDS, k=words))


def ways() -> dict[str, Compress]:
    """By name."""
    found: dict[str, Compress] = {}
    for level in range(1, 7):
        found[f"gzip {level}"] = lambda data, level=level: zlib.compress(data, level, 31)  # type: ignore[misc]
    if isal_zlib is not None:
        for level in range(4):
            found[f"isal {level}"] = lambda data, level=level: isal_zlib.compress(data, level, 31)  # type: ignore[misc]
    for level in range(6):
        found[f"br {level}"] = lambda data, level=level: brotli.compress(data, quality=level)  # type: ignore[misc]
        found[f"br {level}, window 16"] = lambda data, level=level: brotli.compress(  # type: ignore[misc]
            data, quality=level, lgwin=16
        )
    return found


def measure(compress: Compress, data: bytes) -> dict[str, float]:
    spent = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        small = compress(data)
        spent.append(time.thread_time() - began)
    return {"us": round(statistics.median(spent) * 1e6, 1), "bytes": len(small)}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    data = page()
    figures: dict[str, Any] = {"bytes": len(data), "ways": {}}
    for name, compress in ways().items():
        figures["ways"][name] = row = measure(compress, data)
        say(f"  {name:16} {row['us']:8.1f} us  {row['bytes']:6} bytes  {100 * row['bytes'] / len(data):.0f} %")
    file = save("compression", figures)
    print(json.dumps(figures, indent=1))
    say(f"saved to {file}")


if __name__ == "__main__":
    main()
