"""Twins of the rooms' tables, partitioned by hash, and how many partitions a statement touches.

The twins are made from the models, so that no column is forgotten. What a partitioned table cannot have goes: foreign
keys, and uniqueness that does not include the partitions' column.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, ForeignKeyConstraint, MetaData, PrimaryKeyConstraint, Table, UniqueConstraint, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

PARTITIONS: Final = 8
_PARTITION: Final = re.compile(r"(\w+)_part\d+")
Statement = tuple[str, Any]


def twin(table: Table, column: str, into: MetaData) -> set[str]:
    """Put the table, partitioned by ``column``, into ``into``; the names of constraints it had to leave behind."""
    made = table.to_metadata(into)
    lost: set[str] = set()
    for one in list(made.constraints):
        if isinstance(one, ForeignKeyConstraint):
            made.constraints.discard(one)
        if isinstance(one, UniqueConstraint) and column not in one.columns:
            made.constraints.discard(one)
            lost.add(str(one.name))
    for each in made.columns:
        each.foreign_keys.clear()
    made.foreign_keys.clear()
    for index in made.indexes:
        if index.unique and not any(re.search(rf"\b{column}\b", str(one)) for one in index.expressions):
            index.unique = False
            lost.add(str(index.name))
    key = list(dict.fromkeys([column, *made.primary_key.columns.keys()]))
    for name in key:
        made.c[name].primary_key = True
    made.append_constraint(PrimaryKeyConstraint(*key))
    made.dialect_options["postgresql"]["partition_by"] = f'HASH ("{column}")'
    return lost


def create(connection: Connection, tables: MetaData) -> None:
    """Create the twins with their partitions, in their schemas."""
    for schema in sorted({str(table.schema) for table in tables.tables.values()}):
        connection.exec_driver_sql(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
    tables.create_all(connection)
    for table in tables.tables.values():
        if not table.dialect_options["postgresql"]["partition_by"]:
            continue
        name = f'"{table.schema}"."{table.name}'
        for number in range(PARTITIONS):
            connection.exec_driver_sql(
                f'CREATE TABLE {name}_part{number}" PARTITION OF {name}" '
                f"FOR VALUES WITH (MODULUS {PARTITIONS}, REMAINDER {number})"
            )


@contextmanager
def recorded(engine: AsyncEngine) -> Iterator[list[Statement]]:
    """The statements that run on the engine inside the block, with their parameters."""
    found: list[Statement] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        found.append((statement, parameters))

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", note)


async def plans(connection: AsyncConnection, statements: list[Statement]) -> list[dict[str, Any]]:
    """What PostgreSQL did for each: it runs, then is rolled back."""
    found: list[dict[str, Any]] = []
    for statement, parameters in statements:
        explained = "EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF, BUFFERS OFF) " + statement
        answer = (await connection.exec_driver_sql(explained, parameters)).scalar_one()
        await connection.rollback()
        found.append((json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"])
    return found


def planned(plan: dict[str, Any]) -> dict[str, set[str]]:
    """The partitions of each table that the plan reads, whether a limit ended it before or not."""
    found: dict[str, set[str]] = {}
    for node in _nodes(plan):
        match = _PARTITION.fullmatch(node.get("Relation Name", ""))
        if match and "Scan" in node["Node Type"]:
            found.setdefault(match[1], set()).add(match[0])
    return found


def probes(plan: dict[str, Any]) -> Counter[str]:
    """How often a partition of each table was read: for queries that decide while they run."""
    found: Counter[str] = Counter()
    for node in _nodes(plan):
        match = _PARTITION.fullmatch(node.get("Relation Name", ""))
        if match and "Scan" in node["Node Type"]:
            found[match[1]] += round(node["Actual Loops"])
    return found


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)
