"""The table of followers: every follow once more, by who is followed, kept equal by triggers on `follow`.

Triggers, so that it is one place for every writer: this version, the one before it that runs beside while an upgrade
rolls and knows nothing of the table, and whoever copies rows in. The indexes of `follow` that lists of followers came
from stay, because that version reads by them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

import sqlalchemy as sa
from alembic import op

if TYPE_CHECKING:
    from sqlalchemy import Connection

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SCHEMA = "follow"
PAGE: Final = 5_000
"""Follows copied in one transaction: their rows are locked against deletion for some tens of milliseconds."""

MIRROR: Final = (
    """CREATE FUNCTION follow.mirror_new() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO follow.follower (followee_id, follower_id, id, created_at)
  SELECT followee_id, follower_id, id, created_at FROM new_follows;
  RETURN NULL;
END $$""",
    """CREATE FUNCTION follow.mirror_gone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  DELETE FROM follow.follower WHERE followee_id = OLD.followee_id AND follower_id = OLD.follower_id;
  RETURN NULL;
END $$""",
    # Many at once where many come at once, by COPY for one. One at a time where they go: always by the primary key.
    """CREATE TRIGGER follow_new AFTER INSERT ON follow.follow REFERENCING NEW TABLE AS new_follows
  FOR EACH STATEMENT EXECUTE FUNCTION follow.mirror_new()""",
    """CREATE TRIGGER follow_gone AFTER DELETE ON follow.follow
  FOR EACH ROW EXECUTE FUNCTION follow.mirror_gone()""",
)

_END_OF_PAGE: Final = sa.text(
    "SELECT follower_id, followee_id FROM follow.follow WHERE (follower_id, followee_id) > (:follower, :followee) "
    "ORDER BY follower_id, followee_id LIMIT 1 OFFSET :skip"
)
# A follow that is being deleted is waited for: copied afterwards it would stay for ever.
_COPY: Final = (
    "INSERT INTO follow.follower (followee_id, follower_id, id, created_at) "
    "SELECT followee_id, follower_id, id, created_at FROM follow.follow "
    "WHERE (follower_id, followee_id) > (:follower, :followee){to} "
    "ORDER BY follower_id, followee_id FOR KEY SHARE ON CONFLICT DO NOTHING"
)
_COPY_PAGE: Final = sa.text(_COPY.format(to=" AND (follower_id, followee_id) <= (:last_follower, :last_followee)"))
_COPY_REST: Final = sa.text(_COPY.format(to=""))
_FILLED: Final = "filled"


def upgrade() -> None:
    op.create_table(
        "follower",
        sa.Column("followee_id", sa.Uuid, primary_key=True),
        sa.Column("follower_id", sa.Uuid, primary_key=True),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        schema=SCHEMA,
    )
    op.create_index("follower_newest_idx", "follower", ["followee_id", sa.text("id DESC")], schema=SCHEMA)
    for statement in MIRROR:
        op.execute(statement)


def fill(connection: Connection) -> None:
    """Copy what was there before the triggers, page by page, while the version before this goes on. Safe to repeat."""
    told = connection.execute(
        sa.text("SELECT obj_description('follow.mirror_new()'::regprocedure, 'pg_proc')")
    ).scalar()
    if told == _FILLED:
        return
    position = {"follower": UUID(int=0), "followee": UUID(int=0)}
    while True:
        last = connection.execute(_END_OF_PAGE, position | {"skip": PAGE - 1}).one_or_none()
        if last is None:
            break
        follower, followee = last
        connection.execute(_COPY_PAGE, position | {"last_follower": follower, "last_followee": followee})
        position = {"follower": follower, "followee": followee}
    connection.execute(_COPY_REST, position)
    connection.execute(sa.text(f"COMMENT ON FUNCTION follow.mirror_new() IS '{_FILLED}'"))


def downgrade() -> None:
    for name in ("new", "gone"):
        op.execute(f"DROP TRIGGER follow_{name} ON follow.follow")
        op.execute(f"DROP FUNCTION follow.mirror_{name}()")
    op.drop_table("follower", schema=SCHEMA)
