"""How the database's URL may be written."""

from __future__ import annotations

import pytest

from fanfold.kit.db import engine_url
from fanfold.kit.settings import SettingsError


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg", "postgresql+psycopg"])
def test_every_way_to_name_postgresql_is_taken(scheme: str) -> None:
    url = engine_url(f"{scheme}://me:p%40ss@db.test:5433/photos")
    assert url.render_as_string(hide_password=False) == "postgresql+asyncpg://me:p%40ss@db.test:5433/photos"


@pytest.mark.parametrize("text", ["mysql://me:pass@db/photos", "just words", ""])
def test_anything_else_is_refused_without_showing_the_password(text: str) -> None:
    with pytest.raises(SettingsError, match="postgresql://") as refusal:
        engine_url(text)
    assert "pass@" not in str(refusal.value)
