"""Posts, what they show, their tags, and the outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "post"


def upgrade() -> None:
    op.create_table(
        "post",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("author_id", sa.Uuid, nullable=False),
        sa.Column("caption", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("edited_at", sa.DateTime(timezone=True)),
        sa.Column("version", sa.Integer, nullable=False),
        schema=SCHEMA,
    )
    op.create_index("post_author_idx", "post", ["author_id", sa.text("id DESC")], schema=SCHEMA)
    op.create_table(
        "post_image",
        sa.Column("post_id", sa.Uuid, sa.ForeignKey("post.post.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("image_id", sa.Uuid, nullable=False),
        sa.Column("alt_text", sa.Text, nullable=False),
        schema=SCHEMA,
    )
    op.create_index("post_image_image_idx", "post_image", ["image_id"], schema=SCHEMA)
    op.create_table(
        "post_tag",
        sa.Column("tag", sa.Text, primary_key=True),
        sa.Column("post_id", sa.Uuid, sa.ForeignKey("post.post.id", ondelete="CASCADE"), primary_key=True),
        schema=SCHEMA,
    )
    op.create_index("post_tag_post_idx", "post_tag", ["post_id"], schema=SCHEMA)
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
    for table in ("outbox", "post_tag", "post_image", "post"):
        op.drop_table(table, schema=SCHEMA)
