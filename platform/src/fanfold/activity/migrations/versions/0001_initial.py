"""Activities, comments, and the outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "activity"


def upgrade() -> None:
    op.create_table(
        "activity",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("parent_type", sa.Text, nullable=False),
        sa.Column("parent_id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('like', 'comment')", name="activity_kind_check"),
        sa.CheckConstraint("parent_type IN ('post', 'comment')", name="activity_parent_type_check"),
        schema=SCHEMA,
    )
    op.create_index(
        "activity_parent_idx", "activity", ["parent_type", "parent_id", "kind", sa.text("id DESC")], schema=SCHEMA
    )
    op.create_index(
        "activity_like_key",
        "activity",
        ["user_id", "parent_type", sa.text("parent_id DESC")],
        unique=True,
        schema=SCHEMA,
        postgresql_where=sa.text("kind = 'like'"),
    )
    op.create_table(
        "comment",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("post_id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        schema=SCHEMA,
    )
    op.create_index("comment_post_idx", "comment", ["post_id", sa.text("id DESC")], schema=SCHEMA)
    op.create_index("comment_user_idx", "comment", ["user_id", sa.text("id DESC")], schema=SCHEMA)
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("partition", sa.BigInteger, nullable=False),
        sa.Column("event", sa.LargeBinary, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False, server_default=""),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        schema=SCHEMA,
    )


def downgrade() -> None:
    for table in ("outbox", "comment", "activity"):
        op.drop_table(table, schema=SCHEMA)
