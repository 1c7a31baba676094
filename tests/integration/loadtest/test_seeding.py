"""Graphs in a real PostgreSQL: interrupted, repeated, and used by a run."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner

from fanfold_loadtest import journey, seeding
from fanfold_loadtest.cli import app
from fanfold_loadtest.client import Api
from fanfold_loadtest.crowd import choose, read_crowd
from fanfold_loadtest.journey import Journey, whole_feed
from fanfold_loadtest.population import degrees, planted
from fanfold_loadtest.seeding import SeedError, seed
from tests.integration.api.commands import run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

COUNTS = """
SELECT (SELECT count(*) FROM profile."user" WHERE username LIKE $1),
       (SELECT count(*) FROM follow.follow f JOIN profile."user" u ON u.id = f.followee_id WHERE u.username LIKE $1)
"""


async def counts(url: str, tag: str) -> tuple[int, int]:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        people, follows = await connection.fetchrow(COUNTS, tag + "%")
    finally:
        await connection.close()
    return people, follows


async def test_an_interrupted_seeding_goes_on_where_it_ended_and_a_finished_one_does_nothing(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeding, "CHUNK", 100)
    graph = planted(60, [450], seed=2)
    crowd = choose(graph, degrees(graph, 1), 20, "a good password")
    follows = graph.followees.size

    def give_up(part: str, done: int, _: int) -> None:
        if part == "follows" and done == 200:
            raise ConnectionError("cut")

    with pytest.raises(SeedError, match=r"cut; run the command again: it goes on from here"):
        await seed(database_url, graph, crowd, give_up)
    assert await counts(database_url, graph.tag) == (graph.people, 200)
    assert await seed(database_url, graph, crowd, lambda *_: None) == follows - 200
    assert await counts(database_url, graph.tag) == (graph.people, follows)
    assert await seed(database_url, graph, crowd, lambda *_: None) == 0
    # Nothing is there twice even if what was done is forgotten.
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    await connection.execute("DROP SCHEMA loadtest CASCADE")
    await connection.close()
    assert await seed(database_url, graph, crowd, lambda *_: None) == 0
    assert await counts(database_url, graph.tag) == (graph.people, follows)


async def test_two_at_once_of_one_graph_are_refused(database_url: str) -> None:
    graph = planted(20, [50], seed=3)
    crowd = choose(graph, degrees(graph, 1), 5, "a good password")
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    await connection.execute(f"SELECT pg_advisory_lock({seeding._LOCK}, hashtext('{graph.tag}'))")
    with pytest.raises(SeedError, match="is being seeded by another process"):
        await seed(database_url, graph, crowd, lambda *_: None)
    await connection.close()


def test_a_database_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql://nobody@127.0.0.1:1/none")
    done = CliRunner().invoke(app, ["seed", "--database", str(file), "--out", str(tmp_path / "crowd.json")])
    assert done.exit_code == 1
    assert "no connection to PostgreSQL" in done.stderr
    assert done.stderr.count("\n") == 1


async def test_a_run_logs_in_as_seeded_people_who_see_their_celebrity(
    platform: str, house: Any, secrets_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journey, "UPLOADS", 4)
    monkeypatch.setattr(journey, "POSTS", 8)
    out = tmp_path / "crowd.json"
    wanted = ["--celebrity", "300", "--body", "50", "--readers", "20", "--out", str(out)]
    command = [sys.executable, "-c", "from fanfold_loadtest.cli import main; main()"]
    command += ["seed", "--database", str(secrets_dir / "database_url"), *wanted]
    code, said = await run(*command)
    assert code == 0, said
    assert "300" in said
    password = json.loads(out.read_text())["password"]
    code, said = await run(*command)
    assert "0 new rows" in said
    assert json.loads(out.read_text())["password"] == password
    code, said = await run(*command, "--seed", "9")
    assert code == 3
    assert "holds the crowd of graph" in said

    await house.start("image-worker", image_processes=1)
    async with Api(platform) as api:
        made = Journey(api, 12, 1, lambda _: None, read_crowd(out).part(20))
        await made.populate()
        celebrity = made.people[0]
        published = {post.id for post in made.posts if post.author == celebrity.id}
        assert published
        async with asyncio.timeout(60):  # a feed that is warm already has them when they have been pushed
            while not published <= {post.id for post in await whole_feed(made.people[-1])}:
                await asyncio.sleep(0.2)
