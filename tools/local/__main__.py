"""``python -m tools.local up|down|status|figures|loadtest-image``."""

from __future__ import annotations

import sys

from tools.local.clusters import choose
from tools.local.up import down, figures, loadtest_image, status, up
from tools.progress import StageError, fail

COMMANDS = {"up": up, "down": down, "status": status, "figures": figures, "loadtest-image": loadtest_image}


def main(arguments: list[str]) -> None:
    """Run one command; one line says why it failed."""
    if len(arguments) != 1 or arguments[0] not in COMMANDS:
        fail(f"usage: python -m tools.local {'|'.join(COMMANDS)}", 2)
    try:
        COMMANDS[arguments[0]](choose())
    except StageError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; `make up` goes on where it was, `make down` removes everything", 130)


if __name__ == "__main__":
    main(sys.argv[1:])
