"""Users, how they log in, their sessions, and the outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "profile"


def _owner() -> sa.Column[object]:
    return sa.Column("user_id", sa.Uuid, sa.ForeignKey("profile.user.id", ondelete="CASCADE"), primary_key=True)


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "user",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("username", sa.String, nullable=False),
        sa.Column("display_name", sa.String, nullable=False),
        sa.Column("bio", sa.String, nullable=False),
        sa.Column("picture_id", sa.Uuid),
        sa.Column("picture_path", sa.String, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.UniqueConstraint("username", name="user_username_key"),
        schema=SCHEMA,
    )
    op.create_table("credential", _owner(), sa.Column("password_hash", sa.String, nullable=False), schema=SCHEMA)
    op.create_table(
        "session",
        _owner(),
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("family_hash", sa.LargeBinary, nullable=False),
        sa.Column("refresh_hash", sa.LargeBinary, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("refreshed_at", moment, nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.Column("revoked_at", moment),
        schema=SCHEMA,
    )
    op.create_index(
        "session_revoked_idx",
        "session",
        ["revoked_at"],
        schema=SCHEMA,
        postgresql_where=sa.text("revoked_at IS NOT NULL"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("partition", sa.BigInteger, nullable=False),
        sa.Column("event", sa.LargeBinary, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False, server_default=""),
        sa.Column("created_at", moment, nullable=False, server_default=sa.func.now()),
        schema=SCHEMA,
    )


def downgrade() -> None:
    for table in ("outbox", "session", "credential", "user"):
        op.drop_table(table, schema=SCHEMA)
