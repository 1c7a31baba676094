"""Custom resources as the API server would hand them over, and views of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from fanfold_operator.kinds import Manifest, key_of
from fanfold_operator.planning.actions import Images, View

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def images() -> Images:
    return Images("registry.test/fanfold", "0.1.0")


@pytest.fixture
def resource() -> Callable[..., Manifest]:
    """A custom resource with what the API server adds."""

    def make(kind: str, name: str = "demo", spec: dict[str, Any] | None = None, **rest: Any) -> Manifest:
        metadata = {"name": name, "namespace": "prod", "uid": f"uid-{name}", "generation": 1, "resourceVersion": "1"}
        return {
            "apiVersion": "fanfold.dev/v1alpha1",
            "kind": kind,
            "metadata": metadata | rest.pop("metadata", {}),
            "spec": spec or {},
            **rest,
        }

    return make


@pytest.fixture
def view() -> Callable[..., View]:
    def make(resource: Manifest, children: Iterable[Manifest] = (), **rest: Any) -> View:
        return View(resource, {key_of(child): child for child in children}, rest.pop("now", NOW), **rest)

    return make
