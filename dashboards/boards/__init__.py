"""The dashboards, one module each, in the order in which somebody who is woken looks at them."""

from __future__ import annotations

from typing import Final

from dashboards.boards import autoscaling, celebrity, feeds, gateway, images, loadtest, operator, overview

BOARDS: Final = (
    overview.BOARD,
    celebrity.BOARD,
    gateway.BOARD,
    feeds.BOARD,
    images.BOARD,
    operator.BOARD,
    autoscaling.BOARD,
    loadtest.BOARD,
)
