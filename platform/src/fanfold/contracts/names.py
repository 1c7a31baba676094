"""Usernames: how they are written, so that the profile service and the reader of mentions agree."""

from __future__ import annotations

import re
from typing import Final

USERNAME_MIN: Final = 3
USERNAME_MAX: Final = 30
USERNAME: Final = re.compile(r"(?=.{3,30}\Z)[a-z0-9_]+(?:\.[a-z0-9_]+)*", re.ASCII)
"""Matched whole and in lower case: letters, digits, underscores and single dots between them.

No dot at either end, so that a mention may end a sentence.
"""
