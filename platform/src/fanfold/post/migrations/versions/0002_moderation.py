"""Hidden posts, reports about posts, and the log of what moderators did."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "post"


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.add_column("post", sa.Column("hidden_at", moment), schema=SCHEMA)
    op.create_table(
        "report",
        sa.Column("subject_id", sa.Uuid, sa.ForeignKey("post.post.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("reporter_id", sa.Uuid, primary_key=True),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("created_at", moment, nullable=False, server_default=sa.func.now()),
        schema=SCHEMA,
    )
    op.create_index("report_newest_idx", "report", [sa.text("id DESC")], unique=True, schema=SCHEMA)
    op.create_index("report_reporter_idx", "report", ["reporter_id"], schema=SCHEMA)
    op.create_table(
        "moderation_log",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("moderator_id", sa.Uuid),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", moment, nullable=False, server_default=sa.func.now()),
        schema=SCHEMA,
    )


def downgrade() -> None:
    for table in ("moderation_log", "report"):
        op.drop_table(table, schema=SCHEMA)
    op.drop_column("post", "hidden_at", schema=SCHEMA)
