"""Follows, celebrities, and the outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "follow"


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "follow",
        sa.Column("follower_id", sa.Uuid, primary_key=True),
        sa.Column("followee_id", sa.Uuid, primary_key=True),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        schema=SCHEMA,
    )
    op.create_index("follow_followee_idx", "follow", ["followee_id", "follower_id"], unique=True, schema=SCHEMA)
    op.create_index("follow_newest_idx", "follow", ["followee_id", sa.text("id DESC")], schema=SCHEMA)
    op.create_table(
        "celebrity",
        sa.Column("user_id", sa.Uuid, primary_key=True),
        sa.Column("since", moment, nullable=False),
        schema=SCHEMA,
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
    for table in ("outbox", "celebrity", "follow"):
        op.drop_table(table, schema=SCHEMA)
