"""Tags and mentions in captions."""

from __future__ import annotations

import re
import unicodedata
from itertools import takewhile
from typing import Final

from fanfold.contracts.names import USERNAME

MAX_TAG: Final = 64
"""Characters of a tag; a longer word is none."""
MAX_TAGS: Final = 30
MAX_MENTIONS: Final = 20
"""Those beyond are text like any other."""

_TAG_SIGN: Final = re.compile(r"(?<![\w#&/])[#\uff03]")  # not in words, links (/#top) and entities (&#39;)
_MENTION: Final = re.compile(r"(?<![\w.@/])@([a-z0-9_]+(?:\.[a-z0-9_]+)*)")


def normalize_tag(tag: str) -> str:
    """How a tag is stored and looked up: compatibility forms and letter case do not count (UAX #15, NFKC)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", tag).casefold())


def tags(caption: str) -> list[str]:
    """The tags in order of appearance, each once: letters, digits and underscores, not digits alone."""
    found: dict[str, None] = {}
    for sign in _TAG_SIGN.finditer(caption):
        word = "".join(takewhile(_in_tag, caption[sign.end() : sign.end() + MAX_TAG + 1]))
        tag = normalize_tag(word)
        if tag and len(tag) <= MAX_TAG and not tag.isdecimal():
            found[tag] = None
    return list(found)[:MAX_TAGS]


def mentions(caption: str) -> list[str]:
    """Usernames after an @, in lower case, in order of appearance, each once. They may not exist."""
    names = _MENTION.findall(caption.lower())
    return list(dict.fromkeys(name for name in names if USERNAME.fullmatch(name)))[:MAX_MENTIONS]


def _in_tag(character: str) -> bool:
    # Marks are part of letters in many scripts; \w leaves them out.
    return character.isalnum() or character == "_" or unicodedata.category(character).startswith("M")
