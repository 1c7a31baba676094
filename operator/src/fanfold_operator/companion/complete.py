"""The program kubectl asks what could stand next on the command line.

kubectl runs ``kubectl_complete-fanfold WORD...`` with the words after ``kubectl fanfold``, the last one incomplete, and
expects candidates, one a line, and a directive: https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/
"""

from __future__ import annotations

import io
import os
import shlex
import sys
from contextlib import redirect_stdout, suppress
from typing import Any, Final

from fanfold_operator.companion.cli import app
from fanfold_operator.companion.completion import PROGRAM

NO_FILES: Final = ":4"
"""Cobra's ``ShellCompDirectiveNoFileComp``."""


def main() -> None:
    """Entry point of ``kubectl_complete-fanfold``: the same answers the shell gets for ``kubectl-fanfold`` itself."""
    words = sys.argv[1:] or [""]
    asked: dict[str, Any] = {
        f"_{PROGRAM.replace('-', '_').upper()}_COMPLETE": "complete_bash",
        "COMP_WORDS": shlex.join([PROGRAM, *words[:-1]]) + " " + words[-1],
        "COMP_CWORD": str(len(words)),
    }
    os.environ.update(asked)
    answer = io.StringIO()
    with redirect_stdout(answer), suppress(SystemExit):  # how the shell's protocol ends
        app(prog_name=PROGRAM)
    candidates = [line for line in answer.getvalue().splitlines() if line]
    sys.stdout.write("\n".join([*candidates, NO_FILES, ""]))
