"""Shows what processes write to their log files, each line with its writer's name in front."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

COLOURS: Final = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94, 37)
READ_LIMIT: Final = 1 << 20


class LogTail:
    """Follows files that others append to, from their present end.

    Args:
        files: Log file by name.
        show: Gets each whole line.
        colour: Whether to mark names with ANSI colours.
    """

    def __init__(self, files: Mapping[str, Path], show: Callable[[str], None], *, colour: bool) -> None:
        self._files = files
        self._show = show
        self._offsets = {name: file.stat().st_size if file.exists() else 0 for name, file in files.items()}
        width = max(map(len, files), default=0)
        self._prefixes = {
            name: f"\x1b[{COLOURS[index % len(COLOURS)]}m{name:<{width}}\x1b[0m | " if colour else f"{name:<{width}} | "
            for index, name in enumerate(files)
        }

    def look(self) -> None:
        """Show the lines that came since the last look; half a line waits for its end."""
        for name, file in self._files.items():
            if not file.exists():
                continue
            with file.open("rb") as log:
                log.seek(self._offsets[name])
                text = log.read(READ_LIMIT)
            end = text.rfind(b"\n") + 1
            self._offsets[name] += end or (len(text) if len(text) == READ_LIMIT else 0)
            for line in text[:end].decode(errors="replace").splitlines():
                self._show(self._prefixes[name] + line)
