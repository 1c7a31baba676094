"""Moderation as rooms share it: reports about a room's things, and the log of what moderators did with them.

A room that has things to moderate declares both tables (`report_table`, `log_table`), decides what hiding means, and
gives the rest to a `Desk`. Reports end with the moderators' decision, or with their thing or their author; the log has
ids and reasons only, and stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import Column, DateTime, ForeignKey, Index, Table, Text, Uuid, delete, desc, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import SQLModel

from fanfold.contracts.ids import new_id
from fanfold.kit.db import IntegrityError
from fanfold.kit.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlmodel.ext.asyncio.session import AsyncSession

    from fanfold.contracts.api import NewReport
    from fanfold.kit.db import Database, Row

HIDE: Final = "hide"
SHOW: Final = "show"
DISMISS: Final = "dismiss"
"""Actions in the log; others are a room's own."""

_NEWEST: Final = UUID(int=(1 << 128) - 1)


def report_table(schema: str, subject: str) -> Table:
    """Open reports, one for each user and thing. ``subject``: the table of the things; what it loses goes here too."""
    return Table(
        "report",
        SQLModel.metadata,
        Column("subject_id", Uuid, ForeignKey(f"{schema}.{subject}.id", ondelete="CASCADE"), primary_key=True),
        Column("reporter_id", Uuid, primary_key=True),
        Column("id", Uuid, nullable=False),
        Column("reason", Text, nullable=False),
        Column("note", Text, nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        Index("report_newest_idx", desc("id"), unique=True),
        Index("report_reporter_idx", "reporter_id"),
        schema=schema,
        extend_existing=True,
    )


def log_table(schema: str) -> Table:
    """What moderators did, never changed. ``moderator_id`` is null where a command of the operators did it."""
    return Table(
        "moderation_log",
        SQLModel.metadata,
        Column("id", Uuid, primary_key=True),
        Column("moderator_id", Uuid),
        Column("action", Text, nullable=False),
        Column("subject_id", Uuid, nullable=False),
        Column("reason", Text, nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        schema=schema,
        extend_existing=True,
    )


class Desk:
    """Reports and log of one room.

    Args:
        database: The room's.
        reports: Its `report_table`.
        log: Its `log_table`.
    """

    def __init__(self, database: Database, reports: Table, log: Table) -> None:
        self._database = database
        self._reports = reports
        self._log = log

    async def report(self, subject_id: UUID, reporter_id: UUID, new: NewReport) -> None:
        """Report a thing; a second report of the same user replaces the first.

        Raises:
            NotFound: The thing was deleted meanwhile.
        """
        said: dict[str, Any] = {"reason": new.reason, "note": new.note}
        query = insert(self._reports).values(subject_id=subject_id, reporter_id=reporter_id, id=new_id(), **said)
        try:
            async with self._database.transaction() as session:
                await session.exec(query.on_conflict_do_update(constraint=self._reports.primary_key, set_=said))
        except IntegrityError as error:
            raise NotFound("What you report does not exist any more.") from error

    async def reports(self, before: UUID | None, limit: int) -> Sequence[Row[Any]]:
        """The newest open reports below ``before``."""
        return await self._newest(self._reports, before, limit)

    async def log(self, before: UUID | None, limit: int) -> Sequence[Row[Any]]:
        """The newest entries of the log below ``before``."""
        return await self._newest(self._log, before, limit)

    async def dismiss(self, moderator_id: UUID, subject_id: UUID, reason: str) -> None:
        """Nothing is to be done about the reports of a thing; without any, nothing is logged.

        Safe to repeat.
        """
        async with self._database.transaction() as session:
            if await self._close(session, subject_id):
                await self._note(session, moderator_id, DISMISS, subject_id, reason)

    async def record(
        self, session: AsyncSession, moderator_id: UUID | None, action: str, subject_id: UUID, reason: str
    ) -> None:
        """Log a decision in the transaction that carries it out; it answers all reports of the thing."""
        await self._close(session, subject_id)
        await self._note(session, moderator_id, action, subject_id, reason)

    async def forget_reporter(self, session: AsyncSession, reporter_id: UUID) -> None:
        """Delete the reports of a deleted account."""
        await session.exec(delete(self._reports).where(self._reports.c.reporter_id == reporter_id))

    async def _newest(self, table: Table, before: UUID | None, limit: int) -> Sequence[Row[Any]]:
        query = select(table).where(table.c.id < (before or _NEWEST)).order_by(table.c.id.desc()).limit(limit)
        async with self._database.reading() as session:
            return (await (await session.connection()).execute(query)).all()

    async def _close(self, session: AsyncSession, subject_id: UUID) -> int:
        closed = await session.exec(delete(self._reports).where(self._reports.c.subject_id == subject_id))
        return closed.rowcount

    async def _note(
        self, session: AsyncSession, moderator_id: UUID | None, action: str, subject_id: UUID, reason: str
    ) -> None:
        values = {"moderator_id": moderator_id, "action": action, "subject_id": subject_id, "reason": reason}
        await session.exec(insert(self._log).values(id=new_id(), **values))
