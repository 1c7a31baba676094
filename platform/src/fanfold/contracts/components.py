"""The parts a platform runs: one row each, read by the operator, by ``fanfold dev`` and by the gateway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TRAFFIC_PORT: Final = 8000
ADMIN_PORT: Final = 9000


@dataclass(frozen=True, slots=True)
class Component:
    """One deployable part.

    Attributes:
        name: As in ``fanfold run NAME``, in labels, in ``spec.services`` and in the snapshot.
        serves: Whether it listens on the traffic port (workers have the admin port only).
        routed: Whether the gateway routes to it by the hash ring.
        min_replicas: Default lower bound of replicas.
        max_replicas: Default upper bound of replicas.
    """

    name: str
    serves: bool = True
    routed: bool = True
    min_replicas: int = 1
    max_replicas: int = 10


COMPONENTS: Final[tuple[Component, ...]] = (
    Component("gateway", routed=False, min_replicas=2),
    Component("profile"),
    Component("follow"),
    Component("post"),
    Component("activity"),
    Component("feed", min_replicas=2, max_replicas=20),
    Component("image"),
    Component("notification"),
    Component("feed-worker", serves=False, routed=False),
    Component("image-worker", serves=False, routed=False),
    Component("notification-worker", serves=False, routed=False),
)

BY_NAME: Final[dict[str, Component]] = {component.name: component for component in COMPONENTS}
ROUTED: Final[tuple[str, ...]] = tuple(component.name for component in COMPONENTS if component.routed)

# Rooms with a database schema of their own, in the order their migrations run.
MIGRATION_REFUSED: Final = 3
"""Exit code of ``fanfold migrate`` where this version and the schema cannot work together; nothing was changed."""
MIGRATED: Final[tuple[str, ...]] = ("profile", "follow", "image", "post", "activity", "notification")
