"""How rooms give out what they hold about a user: whole rows, page by page, as JSON.

A room says which of its rows are whose (`Part`), in its repository; the rest is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec
from fastapi import APIRouter
from sqlalchemy import ColumnElement, Select, select
from sqlmodel import SQLModel

from fanfold.contracts import exports
from fanfold.kit.errors import Unprocessable
from fanfold.kit.web import internal_route, read_id

if TYPE_CHECKING:
    from sqlalchemy import Table

    from fanfold.kit.db import Database

_FIRST: Final = UUID(int=0)
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one kind.

    Attributes:
        rows: All rows about a user.
        key: What they are ordered by, unique among them: an id.
    """

    rows: Callable[[UUID], Select[Any]]
    key: ColumnElement[UUID]


def part(source: type[SQLModel] | Table, owner: str, *, without: tuple[str, ...] = (), **where: object) -> Part:
    """The rows of a table with an ``id``.

    Args:
        source: The table.
        owner: The column that says whose a row is.
        without: Columns that are kept back: they prove who the user is.
        where: Columns with the value that all these rows have.
    """
    table: Table = source if not isinstance(source, type) else source.__table__  # type: ignore[attr-defined]
    columns = [column for column in table.c if column.name not in without]
    fixed = [table.c[name] == value for name, value in where.items()]
    return Part(lambda user_id: select(*columns).where(table.c[owner] == user_id, *fixed), table.c["id"])


async def page(database: Database, asked: Part, user_id: UUID, after: bytes) -> exports.Rows:
    """One page of rows."""
    above = read_id(after) if after else _FIRST
    query = asked.rows(user_id).where(asked.key > above).order_by(asked.key).limit(exports.ROWS)
    async with database.reading() as session:
        found = (await (await session.connection()).execute(query)).mappings().all()
    last: UUID | None = found[-1]["id"] if len(found) == exports.ROWS else None
    return exports.Rows([_encode(dict(row)) for row in found], last.bytes if last else b"")


def export_router(room: str, database: Database, parts: Mapping[str, Part]) -> APIRouter:
    """Serves the room's parts to the service that makes archives."""
    router = APIRouter()
    assert parts.keys() == set(exports.PARTS[room])

    async def rows(asked: exports.RowsQuery) -> exports.Rows:
        found = parts.get(asked.part)
        if found is None:
            raise Unprocessable(f"This service has no part {asked.part!r} of an archive.")
        return await page(database, found, read_id(asked.user_id), asked.after)

    internal_route(router, exports.ROWS_OF[room], rows)
    return router
