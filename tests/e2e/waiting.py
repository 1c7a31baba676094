"""Waiting for what a cluster does by itself, never without a limit."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests import waiting
from tools.local.clusters import Kubectl
from tools.progress import StageError


def until(condition: Callable[[], object], what: str, seconds: float = 120, pause: float = 0.25) -> float:
    """Seconds until the condition held; fails with what did not come about."""
    started = time.monotonic()
    waiting.until(condition, what, seconds, pause)
    return time.monotonic() - started


def exists(kubectl: Kubectl, what: str) -> bool:
    """Whether ``kubectl get`` finds it (``kind/name``)."""
    try:
        kubectl.run("get", what)
    except StageError:
        return False
    return True
