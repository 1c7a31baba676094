"""Blocks, and requests to follow private accounts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "follow"


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "follow_request",
        sa.Column("follower_id", sa.Uuid, primary_key=True),
        sa.Column("followee_id", sa.Uuid, primary_key=True),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        schema=SCHEMA,
    )
    op.create_index("follow_request_newest_idx", "follow_request", ["followee_id", sa.text("id DESC")], schema=SCHEMA)
    op.create_table(
        "block",
        sa.Column("blocker_id", sa.Uuid, primary_key=True),
        sa.Column("blocked_id", sa.Uuid, primary_key=True),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        schema=SCHEMA,
    )
    op.create_index("block_blocked_idx", "block", ["blocked_id"], schema=SCHEMA)


def downgrade() -> None:
    for table in ("block", "follow_request"):
        op.drop_table(table, schema=SCHEMA)
