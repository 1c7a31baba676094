"""What the operator gives a component is what the component reads: names and values of settings, and secrets."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Literal

import pytest

from fanfold.contracts.components import BY_NAME
from fanfold.contracts.resources import MediaSpec, PlatformSpec
from fanfold.kit.settings import Settings
from fanfold_operator.planning import environment


@pytest.mark.parametrize("component", sorted(BY_NAME))
def test_a_component_takes_every_setting_it_is_given(component: str, monkeypatch: pytest.MonkeyPatch) -> None:
    room, _, role = component.partition("-")
    kind: Callable[[], Settings] = importlib.import_module(f"fanfold.{room}.{role or 'app'}").SETTINGS
    for one in environment.of_component(component, "prod", "demo", "1.2.3", PlatformSpec()):
        monkeypatch.setenv(one.name, one.value)
    settings = kind()
    assert settings.service == component
    assert settings.version == "1.2.3"
    assert settings.peers["follow"] == "http://demo-follow:8000"
    assert settings.celebrity_threshold == 10_000
    waits = settings.release_seconds + settings.drain_seconds + settings.grace_seconds
    assert waits < environment.GRACE_SECONDS


@pytest.mark.parametrize("signed", ["private", "all", "none"])
@pytest.mark.parametrize("component", ["feed", "post", "profile", "image"])
def test_whose_photos_are_signed_reaches_all_that_sign_or_verify(
    component: str, signed: Literal["private", "all", "none"], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = PlatformSpec(media=MediaSpec(signed=signed))
    for one in environment.of_component(component, "prod", "demo", "1", spec):
        monkeypatch.setenv(one.name, one.value)
    settings: Settings = importlib.import_module(f"fanfold.{component}.app").SETTINGS()
    assert settings.signed_photos == signed


def test_every_setting_is_read_by_some_component() -> None:
    known: set[str] = set()
    given: set[str] = set()
    for component in BY_NAME:
        room, _, role = component.partition("-")
        settings = importlib.import_module(f"fanfold.{room}.{role or 'app'}").SETTINGS
        known |= {f"FANFOLD_{name.upper()}" for name in settings.model_fields}
        given |= {one.name for one in environment.of_component(component, "prod", "demo", "1", PlatformSpec())}
    assert given <= known
