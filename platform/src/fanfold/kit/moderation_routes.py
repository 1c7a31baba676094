"""HTTP of moderation, the same for everything that can be reported and hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from fastapi import APIRouter, Path

from fanfold.contracts.api import Decision, LogEntry, NewReport, Page, Report
from fanfold.kit.pagination import CursorCodec
from fanfold.kit.web import PAGE_LIMIT, CurrentModerator, CurrentUser, CursorText, Limit

if TYPE_CHECKING:
    from fanfold.kit.moderation import Desk


class Moderated(Protocol):
    """What a room does with its things."""

    async def check(self, viewer: UUID, subject_id: UUID) -> None:
        """Refuse who may not see the thing, and so cannot report it: NotFound or Forbidden."""

    async def hide(self, moderator_id: UUID, subject_id: UUID, reason: str) -> None:
        """Nobody else sees it when this returns. Safe to repeat; NotFound if it is not there."""

    async def show(self, moderator_id: UUID, subject_id: UUID, reason: str) -> None:
        """All see it again. Safe to repeat; NotFound if it is not there."""


def moderation_router(noun: str, room: str, desk: Desk, moderated: Moderated, cursor_key: str) -> APIRouter:
    """Routes of reports, of hiding and showing, and of the log.

    Args:
        noun: What is moderated, as paths have it in the singular.
        room: The room's tag.
        desk: Its reports and log.
        moderated: Its decisions.
        cursor_key: The secret of this name.
    """
    router = APIRouter(tags=[room])
    of_reports, of_log = CursorCodec(cursor_key, f"{noun}-reports"), CursorCodec(cursor_key, f"{noun}-log")
    under = f"/v1/moderation/{noun}s"
    named: Any = Path(alias=f"{noun}_id")
    one = f"{{{noun}_id}}"

    @router.put(f"/v1/{noun}s/{one}/report", status_code=204, summary=f"Report a {noun}")
    async def report(new: NewReport, user_id: CurrentUser, subject_id: UUID = named) -> None:
        """Tell the moderators. Your second report of the same replaces your first."""
        await moderated.check(user_id, subject_id)
        await desk.report(subject_id, user_id, new)

    @router.get(f"{under}/reports", summary=f"List reported {noun}s")
    async def list_reports(_: CurrentModerator, limit: Limit = PAGE_LIMIT, cursor: CursorText = None) -> Page[Report]:
        """Reports that nobody has decided about, newest first. For moderators."""
        rows = await desk.reports(of_reports.decode(cursor), limit + 1)
        return Page(items=[Report(**row._mapping) for row in rows[:limit]], next_cursor=_next(rows, limit, of_reports))  # noqa: SLF001 - public in SQLAlchemy

    @router.get(f"{under}/log", summary=f"Read the log of moderated {noun}s")
    async def read_log(_: CurrentModerator, limit: Limit = PAGE_LIMIT, cursor: CursorText = None) -> Page[LogEntry]:
        """What moderators did, newest first. For moderators."""
        rows = await desk.log(of_log.decode(cursor), limit + 1)
        return Page(items=[LogEntry(**row._mapping) for row in rows[:limit]], next_cursor=_next(rows, limit, of_log))  # noqa: SLF001 - public in SQLAlchemy

    @router.put(f"{under}/{one}/dismissal", status_code=204, summary=f"Dismiss the reports of a {noun}")
    async def dismiss(decision: Decision, moderator_id: CurrentModerator, subject_id: UUID = named) -> None:
        """Close all reports of it: nothing is to be done. Safe to repeat. For moderators."""
        await desk.dismiss(moderator_id, subject_id, decision.reason)

    @router.put(f"{under}/{one}/hidden", status_code=204, summary=f"Hide a {noun}")
    async def hide(decision: Decision, moderator_id: CurrentModerator, subject_id: UUID = named) -> None:
        """Hide it from everybody else, and close its reports. Safe to repeat. For moderators."""
        await moderated.hide(moderator_id, subject_id, decision.reason)

    @router.put(f"{under}/{one}/shown", status_code=204, summary=f"Show a hidden {noun} again")
    async def show(decision: Decision, moderator_id: CurrentModerator, subject_id: UUID = named) -> None:
        """Take hiding back. Safe to repeat. For moderators."""
        await moderated.show(moderator_id, subject_id, decision.reason)

    return router


def _next(rows: Any, limit: int, cursors: CursorCodec) -> str | None:
    return cursors.encode(rows[limit - 1].id) if len(rows) > limit else None
