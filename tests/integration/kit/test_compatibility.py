"""Versions of the code that follow each other on one real schema, forth and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest
from alembic.config import Config
from typer.testing import CliRunner

from fanfold import cli
from fanfold.contracts.components import MIGRATION_REFUSED
from fanfold.kit import migrations
from fanfold.kit.compatibility import IncompatibleError

REVISION = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "{number}", {before}
{more}
def upgrade():
    op.create_table("t{number}", sa.Column("id", sa.Integer), schema="annex")
"""
NEEDS = {3: 'needs = "2"'}


@pytest.fixture
def version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make the code that of a version whose room `annex` has so many revisions; the third one needs the second."""

    def choose(count: int) -> None:
        folder = tmp_path / f"v{count}"
        (folder / "versions").mkdir(parents=True, exist_ok=True)
        (folder / "env.py").write_text("from fanfold.kit.migrations import run_environment\nrun_environment()\n")
        for number in range(1, count + 1):
            before = f'"{number - 1}"' if number > 1 else None
            text = REVISION.format(number=number, before=before, more=NEEDS.get(number, ""))
            (folder / "versions" / f"{number}.py").write_text(text)

        def config(room: str, url: str = "") -> Config:
            made = Config()
            made.set_main_option("script_location", str(folder))
            made.attributes.update(room=room, url=url)
            return made

        monkeypatch.setattr(migrations, "config", config)

    return choose


def state(url: str) -> tuple[str, str]:
    """The revision and the mark."""

    async def read() -> tuple[str, str]:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""), timeout=60)
        try:
            revision = await connection.fetchval("SELECT version_num FROM annex.alembic_version")
            mark = await connection.fetchval("SELECT obj_description('annex.alembic_version'::regclass, 'pg_class')")
            return revision, mark
        finally:
            await connection.close(timeout=60)

    return asyncio.run(read())


def test_versions_follow_each_other_and_go_back_as_far_as_the_schema_allows(
    database_url: str, version: Callable[[int], None]
) -> None:
    version(1)
    migrations.check(["annex"], database_url)
    migrations.upgrade("annex", database_url)
    assert state(database_url) == ("1", '{"needs":"1","code":"1"}')
    version(3)
    with pytest.raises(IncompatibleError, match="what runs knows 1"):
        migrations.check(["annex"], database_url)
    with pytest.raises(IncompatibleError):
        migrations.upgrade("annex", database_url)
    assert state(database_url) == ("1", '{"needs":"1","code":"1"}'), "nothing was changed"
    version(2)
    migrations.upgrade("annex", database_url)
    version(1)
    migrations.upgrade("annex", database_url)
    assert state(database_url) == ("2", '{"needs":"1","code":"1"}'), "newer than the code, which may run"
    version(3)
    with pytest.raises(IncompatibleError):
        migrations.check(["annex"], database_url)
    version(2)
    migrations.upgrade("annex", database_url)
    version(3)
    migrations.upgrade("annex", database_url)
    migrations.upgrade("annex", database_url)
    assert state(database_url) == ("3", '{"needs":"2","code":"3"}')
    version(1)
    with pytest.raises(IncompatibleError, match="needs code that knows revision 2"):
        migrations.upgrade("annex", database_url)


def test_the_command_tells_a_refusal_from_a_failure(
    database_url: str, secrets_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def age() -> None:
        connection = await asyncpg.connect(database_url.replace("+asyncpg", ""), timeout=60)
        try:
            await connection.execute("UPDATE post.alembic_version SET version_num = '9999'")
            mark = '{"needs": "9999", "code": "9999"}'
            await connection.execute(f"COMMENT ON TABLE post.alembic_version IS '{mark}'")
        finally:
            await connection.close(timeout=60)

    asyncio.run(age())
    monkeypatch.setenv("FANFOLD_SECRETS_DIR", str(secrets_dir))
    monkeypatch.setenv("FANFOLD_SERVICE", "migrations")
    answer = CliRunner().invoke(cli.app, ["migrate"])
    assert answer.exit_code == MIGRATION_REFUSED, answer.output
    assert "migrated" not in answer.output
