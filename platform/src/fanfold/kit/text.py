"""Text that people write."""

from __future__ import annotations

import unicodedata


def free_text(value: str) -> str:
    """Trimmed, in NFC, lines ended by a line feed.

    Formatting characters stay: emoji and right-to-left scripts are written with them.

    Raises:
        ValueError: It has control characters (PostgreSQL has no NUL) or halves of surrogate pairs.
    """
    text = unicodedata.normalize("NFC", value.replace("\r\n", "\n").replace("\r", "\n")).strip()
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text if character not in "\n\t"):
        raise ValueError("leave out control characters")
    return text
