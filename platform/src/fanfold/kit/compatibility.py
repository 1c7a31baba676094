"""Which versions of the code can work with which schema: expand first, contract when nobody needs the old form.

A revision only adds (expands), unless its module says ``needs = "0002"``: then only code that knows revision 0002 can
work with the schema from there on. What the schema needs, and what the code that uses it knows, stands beside the
revision, as the comment of Alembic's version table: it is copied, dumped and rolled back with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from alembic.script import ScriptDirectory
from sqlalchemy import text

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import Script
    from sqlalchemy import Connection


class IncompatibleError(Exception):
    """This version and the schema cannot work together; nothing was changed."""


class Mark(msgspec.Struct, frozen=True):
    """What is written beside the revision.

    Attributes:
        needs: The revision that code must know to work with the schema.
        code: The newest revision that the code last told to run knows.
    """

    needs: str
    code: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """The revisions this version knows, oldest first, and which of them code must know to work with the newest."""

    revisions: tuple[str, ...]
    needs: str

    @property
    def head(self) -> str:
        """The newest revision."""
        return self.revisions[-1]


def scripts(config: Config) -> list[Script]:
    """The revisions of one room, oldest first."""
    return list(ScriptDirectory.from_config(config).walk_revisions())[::-1]


def lineage(config: Config) -> Lineage:
    """The revisions of one room, as this version has them."""
    known = scripts(config)
    needs = [one.module.needs for one in known if hasattr(one.module, "needs")]
    return Lineage(tuple(one.revision for one in known), [known[0].revision, *needs][-1])


def judge(room: str, known: Lineage, current: str | None, mark: Mark | None) -> Mark:
    """The mark to write once the schema is migrated, or left as it is because it is newer.

    Raises:
        IncompatibleError: This version cannot work with it, or what runs could not any more.
    """
    if current is None:
        return Mark(known.needs, known.head)
    if current not in known.revisions:
        if mark is None or mark.needs not in known.revisions:
            needed = f"needs code that knows revision {mark.needs}" if mark else "does not say what it needs"
            raise IncompatibleError(
                f"{room}: the schema is at revision {current} and {needed}; this version knows {known.head}. "
                "Use a newer version"
            )
        return Mark(mark.needs, known.head)
    runs = mark.code if mark and mark.code in known.revisions else current
    if known.revisions.index(known.needs) > known.revisions.index(runs):
        raise IncompatibleError(
            f"{room}: revision {known.head} needs code that knows {known.needs}, and what runs knows {runs}. "
            "Upgrade to a version in between first"
        )
    return Mark(known.needs, known.head)


def read(connection: Connection, room: str) -> tuple[str | None, Mark | None]:
    """The schema's revision and its mark; None where there is none yet."""
    table = f'"{room}".alembic_version'
    found = connection.execute(text("SELECT obj_description(to_regclass(:table), 'pg_class')"), {"table": table})
    comment = found.scalar()
    if not connection.execute(text("SELECT to_regclass(:table)"), {"table": table}).scalar():
        return None, None
    current = connection.execute(text(f"SELECT version_num FROM {table}")).scalar()  # noqa: S608 - a room's name
    return current, msgspec.json.decode(comment, type=Mark) if comment else None


def write(connection: Connection, room: str, mark: Mark) -> None:
    """Put the mark beside the revision."""
    literal = msgspec.json.encode(mark).decode().replace("'", "''").replace(":", r"\:")
    connection.execute(text(f"COMMENT ON TABLE \"{room}\".alembic_version IS '{literal}'"))
