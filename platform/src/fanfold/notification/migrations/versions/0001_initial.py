"""Notifications, and how far each user has read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "notification"


def upgrade() -> None:
    op.create_table(
        "notification",
        sa.Column("user_id", sa.Uuid, primary_key=True),
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("actor_id", sa.Uuid, nullable=False),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        sa.Column("post_id", sa.Uuid),
        sa.Column("comment_id", sa.Uuid),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("user_id", "kind", "actor_id", "subject_id", name="notification_once"),
        schema=SCHEMA,
    )
    op.create_index("notification_post_idx", "notification", ["post_id"], schema=SCHEMA)
    op.create_index("notification_actor_idx", "notification", ["actor_id"], schema=SCHEMA)
    op.create_table(
        "read_marker",
        sa.Column("user_id", sa.Uuid, primary_key=True),
        sa.Column("up_to", sa.Uuid, nullable=False),
        schema=SCHEMA,
    )


def downgrade() -> None:
    for table in ("read_marker", "notification"):
        op.drop_table(table, schema=SCHEMA)
