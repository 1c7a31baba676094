"""Every hot query touches one partition of tables that are partitioned by hash, as docs/scaling.md says.

The queries are those of the rooms' repositories, as they issue them. Each of a repository's functions has to stand
either here or, with the reason, in the page's list of those that ask all partitions: a new one cannot be forgotten.
"""

from __future__ import annotations

import importlib
import inspect
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from fanfold.activity import repository as activity
from fanfold.activity.models import COMMENT, LIKE, POST, Activity, Comment
from fanfold.contracts.ids import first_id, new_id
from fanfold.dev.stores import BackingStores
from fanfold.follow import repository as follow
from fanfold.kit.db import Database
from fanfold.notification import repository as notification
from fanfold.notification.drafts import Draft
from fanfold.post import repository as post
from fanfold.post.models import Post, PostImage
from fanfold.profile import repository as profile
from fanfold.profile.models import User
from fanfold.profile.tokens import RefreshToken
from tests.integration import partitions

pytestmark = pytest.mark.integration

PAGE: Final = Path(__file__).parents[2] / "docs" / "scaling.md"
REPOSITORIES: Final = {
    "profile": profile,
    "follow": follow,
    "post": post,
    "activity": activity,
    "notification": notification,
}
WHOLE: Final = ("follow.celebrity",)
"""A few rows, of which each server has a copy."""
ME, YOU = new_id(), new_id()
A_POST, A_COMMENT, AN_ID, A_SESSION = new_id(), new_id(), new_id(), new_id()
NOW: Final = datetime.now(UTC)
AUTHORS: Final = [new_id() for _ in range(40)]
TOKEN: Final = RefreshToken.new(ME, A_SESSION)
LIKED: Final = Activity(id=new_id(), kind=LIKE, parent_type=POST, parent_id=A_POST, user_id=ME, created_at=NOW)
TOLD: Final = Draft(ME, "like", YOU, A_POST, A_POST)
Query = Callable[[AsyncSession], Awaitable[Any]]

HOT: Final[dict[str, Query]] = {
    # The feed: its rebuild is `followees` and `TOGETHER`, its pages below what is cached the same with a cursor.
    "follow.followees": lambda session: follow.followees(session, ME),
    "follow.following_among": lambda session: follow.following_among(session, ME, AUTHORS),
    "follow.count_following": lambda session: follow.count_following(session, ME),
    "follow.newest_followees": lambda session: follow.newest_followees(session, ME, AN_ID, 20),
    # Fan-out, and who follows whom.
    "follow.followers_page": lambda session: follow.followers_page(session, ME, AN_ID, 5_000),
    "follow.count_followers": lambda session: follow.count_followers(session, ME, 10_001),
    "follow.newest_followers": lambda session: follow.newest_followers(session, ME, AN_ID, 20),
    "follow.get": lambda session: follow.get(session, ME, YOU),
    "follow.add": lambda session: follow.add(session, ME, YOU),
    "follow.remove": lambda session: follow.remove(session, ME, YOU),
    "follow.is_celebrity": lambda session: follow.is_celebrity(session, ME),
    "follow.mark_celebrity": lambda session: follow.mark_celebrity(session, ME, celebrity=True),
    "follow.lock_pair": lambda session: follow.lock_pair(session, ME, YOU),
    "follow.lock_blocker": lambda session: follow.lock_blocker(session, ME),
    "follow.add_request": lambda session: follow.add_request(session, ME, YOU),
    "follow.remove_request": lambda session: follow.remove_request(session, ME, YOU),
    "follow.newest_requests": lambda session: follow.newest_requests(session, ME, AN_ID, 20),
    "follow.add_block": lambda session: follow.add_block(session, ME, YOU),
    "follow.remove_block": lambda session: follow.remove_block(session, ME, YOU),
    "follow.get_block": lambda session: follow.get_block(session, ME, YOU),
    "follow.newest_blocks": lambda session: follow.newest_blocks(session, ME, AN_ID, 20),
    "follow.blocked": lambda session: follow.blocked(session, [ME]),
    # Posts of an author, and one made.
    "post.newest": lambda session: post.newest(session, [ME], A_POST, 20),
    "post.some_of_author": lambda session: post.some_of_author(session, ME, 100),
    "post.add": lambda session: post.add(
        session,
        post.Stored(
            Post(id=new_id(), author_id=ME, caption="", created_at=NOW),
            [PostImage(post_id=A_POST, position=0, image_id=AN_ID, alt_text="")],
        ),
        ["dawn"],
    ),
    # Likes and comments of a post.
    "activity.post_counts": lambda session: activity.post_counts(session, [A_POST]),
    "activity.comment_likes": lambda session: activity.comment_likes(session, [A_COMMENT]),
    "activity.likers": lambda session: activity.likers(session, A_POST, AN_ID, 20),
    "activity.comments": lambda session: activity.comments(session, A_POST, AN_ID, 20),
    "activity.liked_among": lambda session: activity.liked_among(session, ME, POST, [A_POST]),
    "activity.add_like": lambda session: activity.add_like(session, LIKED),
    "activity.remove_like": lambda session: activity.remove_like(session, ME, POST, A_POST),
    "activity.add_comment": lambda session: activity.add_comment(
        session, Comment(id=A_COMMENT, post_id=A_POST, user_id=ME, text="", created_at=NOW)
    ),
    "activity.some_comments_of_post": lambda session: activity.some_comments_of_post(session, A_POST, 100),
    # Notifications.
    "notification.add": lambda session: notification.add(session, TOLD, NOW),
    "notification.trim": lambda session: notification.trim(session, ME, first_id(0)),
    "notification.page": lambda session: notification.page(session, ME, AN_ID, 20),
    "notification.after": lambda session: notification.after(session, ME, AN_ID, 20),
    "notification.state": lambda session: notification.state(session, ME),
    "notification.unread": lambda session: notification.unread(session, ME, AN_ID),
    "notification.mark_read": lambda session: notification.mark_read(session, ME, AN_ID),
    "notification.muted": lambda session: notification.muted(session, ME),
    "notification.mute": lambda session: notification.mute(session, ME, "like", wanted=False),
    "notification.forget_pair": lambda session: notification.forget_pair(session, ME, YOU),
    # Accounts and sessions, of which both ids are in every token.
    "profile.get_user": lambda session: profile.get_user(session, ME),
    "profile.get_users": lambda session: profile.get_users(session, [ME]),
    "profile.role_of": lambda session: profile.role_of(session, ME),
    "profile.add_user": lambda session: profile.add_user(
        session, User(id=new_id(), username="somebody", display_name="", created_at=NOW), "hash"
    ),
    "profile.delete_user": lambda session: profile.delete_user(session, ME),
    "profile.get_credential": lambda session: profile.get_credential(session, ME),
    "profile.still_has_hash": lambda session: profile.still_has_hash(session, ME, "hash"),
    "profile.set_password_hash": lambda session: profile.set_password_hash(session, ME, "hash"),
    "profile.get_session": lambda session: profile.get_session(session, ME, A_SESSION),
    "profile.get_sessions": lambda session: profile.get_sessions(session, ME),
    "profile.rotate_session": lambda session: profile.rotate_session(
        session, old=TOKEN, new=TOKEN, now=NOW, expires_at=NOW + timedelta(days=1)
    ),
    "profile.revoke_session": lambda session: profile.revoke_session(session, ME, A_SESSION, NOW),
    "profile.revoke_all": lambda session: profile.revoke_all(session, ME, NOW, but=None),
    "profile.revoke_beyond": lambda session: profile.revoke_beyond(session, ME, 10, NOW),
    "profile.delete_ended_sessions": lambda session: profile.delete_ended_sessions(session, ME, NOW),
}


def told(heading: str) -> dict[str, str]:
    """First and last cell of the rows of a table in the page."""
    section = PAGE.read_text().partition(f"\n### {heading}\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| `([^|]+)` \|(?:.*\|)? ([^|]+) \|$", section, re.MULTILINE)
    return {name: last.strip("` ") for one, last in rows for name in one.split("`, `")}


@pytest.fixture(scope="module")
def columns() -> dict[str, str]:
    """By which column the page says a table is partitioned."""
    return told("Which column")


def made_twins(columns: dict[str, str]) -> tuple[MetaData, set[str]]:
    into, lost = MetaData(), set[str]()
    for name, column in columns.items():
        lost |= partitions.twin(SQLModel.metadata.tables[name], column, into)
    for name in WHOLE:
        SQLModel.metadata.tables[name].to_metadata(into)
    return into, lost


@pytest.fixture
async def engine(stores: BackingStores, columns: dict[str, str]) -> AsyncIterator[AsyncEngine]:
    """A database whose hot tables are partitioned, some rows in each."""
    name = f"partitioned_{secrets.token_hex(4)}"
    server = await asyncpg.connect(stores.database_url.replace("+asyncpg", ""), timeout=60)
    await server.execute(f"CREATE DATABASE {name}")
    made = create_async_engine(f"{stores.database_url.rpartition('/')[0]}/{name}")
    tables, _ = made_twins(columns)
    async with made.begin() as connection:
        await connection.run_sync(partitions.create, tables)
    yield made
    await made.dispose()
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await server.close(timeout=60)


async def explained(engine: AsyncEngine, query: Query) -> list[dict[str, Any]]:
    """The plans of what the query sends, its own changes undone."""
    with partitions.recorded(engine) as statements:
        async with AsyncSession(engine) as session:
            await query(session)
            await session.rollback()
    async with engine.connect() as connection:
        return await partitions.plans(connection, statements)


async def test_every_hot_query_touches_one_partition(engine: AsyncEngine) -> None:
    wrong: dict[str, Any] = {}
    for name, query in HOT.items():
        for plan in await explained(engine, query):
            touched = partitions.planned(plan) or {}
            if any(len(found) != 1 for found in touched.values()):
                wrong[name] = touched
    # The one that decides while it runs is below.
    assert wrong.pop("post.newest") is not None
    assert not wrong


@pytest.mark.parametrize("authors", [AUTHORS[:1], AUTHORS], ids=["one-author", "rebuild"])
async def test_the_newest_posts_of_authors_are_read_from_one_partition_for_each_author(
    engine: AsyncEngine, authors: list[UUID]
) -> None:
    async with AsyncSession(engine) as session, session.begin():
        for author in AUTHORS:
            made = Post(id=new_id(), author_id=author, caption="", created_at=NOW)
            image = PostImage(post_id=made.id, position=0, image_id=AN_ID, alt_text="")
            await post.add(session, post.Stored(made, [image]), ())
    for before in (post.NEWEST, new_id()):
        [plan] = await explained(engine, lambda session, at=before: post.newest(session, authors, at, 50))  # type: ignore[misc]
        assert plan["Actual Rows"] == len(authors)
        assert partitions.probes(plan) == {"post": len(authors)}


async def test_a_page_of_posts_asks_for_their_counts_where_they_are_and_nowhere_else(engine: AsyncEngine) -> None:
    [plan] = await explained(engine, lambda session: activity.post_counts(session, AUTHORS[:3]))
    assert len(partitions.planned(plan)["activity"]) <= 3
    [plan] = await explained(engine, lambda session: activity.liked_among(session, ME, COMMENT, AUTHORS[:3]))
    assert len(partitions.planned(plan)["activity"]) <= 3


async def test_a_query_that_lacks_the_column_is_seen_to_ask_everywhere(engine: AsyncEngine) -> None:
    [plan] = await explained(engine, lambda session: profile.get_users_named(session, ["somebody"]))
    assert len(partitions.planned(plan)["user"]) == partitions.PARTITIONS


async def test_the_pages_commands_partition_a_table_in_use(database_url: str) -> None:
    commands = PAGE.read_text().partition("```sql\n")[2].partition("```")[0]
    database = Database(create_async_engine(database_url))
    async with database.transaction() as session:
        for one in AUTHORS[1:]:
            await follow.add(session, one, AUTHORS[0])
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""), timeout=60)
    await connection.execute(commands)
    parts = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'follow.follower'::regclass"
    assert await connection.fetchval(parts) == 8
    async with database.transaction() as session:
        assert await follow.remove(session, AUTHORS[1], AUTHORS[0])
        assert await follow.add(session, ME, AUTHORS[0])
    async with database.reading() as session:
        page = await follow.followers_page(session, AUTHORS[0], UUID(int=0), 100)
    assert page == b"".join(sorted(one.bytes for one in (*AUTHORS[2:], ME)))
    assert await schema_names(connection) == {"follower_pkey", "follower_newest_idx"}
    await connection.close(timeout=60)
    await database.close()


async def schema_names(connection: Any) -> set[str]:
    found = await connection.fetch(
        "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'follow.follower'::regclass"
    )
    return {row[0].removeprefix("follow.") for row in found}


def test_partitioning_takes_no_uniqueness_but_what_the_page_says(columns: dict[str, str]) -> None:
    _, lost = made_twins(columns)
    assert lost == {"user_username_key"}
    assert "`user_username_key`" in PAGE.read_text()


def test_every_table_is_in_the_page(columns: dict[str, str]) -> None:
    for room in REPOSITORIES:
        importlib.import_module(f"fanfold.{room}.models")
    small = {"outbox", "report", "moderation_log", "celebrity"}
    tables = {name for name, table in SQLModel.metadata.tables.items() if table.schema in REPOSITORIES}
    assert columns.keys() == {name for name in tables if name.partition(".")[2] not in small}


def test_every_function_of_a_repository_is_proven_or_excused() -> None:
    functions = {
        f"{room}.{name}"
        for room, module in REPOSITORIES.items()
        for name, function in inspect.getmembers(module, inspect.iscoroutinefunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }
    excused = told("What asks all partitions")
    assert not excused.keys() & HOT.keys()
    assert functions == HOT.keys() | excused.keys()
