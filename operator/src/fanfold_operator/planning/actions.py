"""What a plan asks for, and what it is made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from fanfold_operator.autoscale.rules import Apis
from fanfold_operator.kinds import Key, Manifest, key_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fanfold_operator.autoscale.report import State
    from fanfold_operator.planning.upgrade import ErrorRate


@dataclass(frozen=True, slots=True)
class Actions:
    """Objects to bring about, in this order, and objects to delete."""

    apply: tuple[Manifest, ...] = ()
    delete: tuple[Manifest, ...] = ()


@dataclass(frozen=True, slots=True)
class Conflict:
    """Fields of an object that another manager has declared its own; the operator leaves them to it."""

    key: Key
    manager: str
    fields: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.key}: {', '.join(self.fields)} belong to {self.manager!r}"


@dataclass(frozen=True, slots=True)
class Images:
    """Where images come from unless a Platform says otherwise."""

    prefix: str
    version: str

    def reference(self, name: str, version: str | None = None) -> str:
        """``prefix/name:version``."""
        return f"{self.prefix}/{name}:{version or self.version}"


@dataclass(frozen=True, slots=True)
class View:
    """What is known when a custom resource is planned.

    Attributes:
        resource: The custom resource itself.
        children: What it controls.
        now: The time.
        conflicts: Found while applying.
        paused: Whether nothing may be changed.
    """

    resource: Manifest
    children: Mapping[Key, Manifest]
    now: datetime
    conflicts: tuple[Conflict, ...] = ()
    paused: bool = False
    secrets: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    """Keys of the user's Secrets it refers to; None: no such Secret."""
    lost_volumes: tuple[str, ...] = ()
    """Volume claims whose credentials are gone."""
    node_address: str | None = None
    """Address of a node that runs a gateway."""
    apis: Apis = field(default_factory=Apis)
    """Optional APIs the cluster serves."""
    scaling: State | None = None
    """What the operator's own autoscaler last decided of a service."""
    gate_template: Manifest | None = None
    """The LoadTest that the spec names as the gate of upgrades, if there is one of that name."""
    operator: str = ""
    """DNS name of the Service of the operator's admin ports; empty: pods cannot reach it."""
    pinned: Mapping[str, int] = field(default_factory=dict)
    """Replicas of components that a load test has scaled, while it lasts."""
    errors: ErrorRate | None = None
    """What the gateways answered lately, while a new version is rolled out."""

    @property
    def name(self) -> str:
        """The resource's name."""
        return str(self.resource["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """The resource's namespace."""
        return str(self.resource["metadata"]["namespace"])

    def child(self, kind: str, name: str) -> Manifest | None:
        """A controlled object."""
        return self.children.get(Key(kind, self.namespace, name))


def superfluous(view: View, wanted: Iterable[Manifest]) -> tuple[Manifest, ...]:
    """Controlled objects that are not wanted any more."""
    keys = {key_of(manifest) for manifest in wanted}
    return tuple(child for key, child in view.children.items() if key not in keys)
