"""Pictures, who uses them, uploads under way, and the outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "image"


def upgrade() -> None:
    op.create_table(
        "image",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("owner_id", sa.Uuid, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("media", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("failure", sa.String, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("format", sa.String, nullable=False),
        sa.Column("original_size", sa.Integer, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("blurhash", sa.String, nullable=False),
        sa.Column("variants", JSONB, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("unused_since", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("owner_id", "sha256", name="image_owner_content_key"),
        sa.UniqueConstraint("media", name="image_media_key"),
        sa.CheckConstraint("status IN ('pending', 'ready', 'failed')", name="image_status_check"),
        schema=SCHEMA,
    )
    op.create_index(
        "image_unused_idx",
        "image",
        ["unused_since"],
        schema=SCHEMA,
        postgresql_where=sa.text("unused_since IS NOT NULL"),
    )
    op.create_table(
        "image_use",
        sa.Column("image_id", sa.Uuid, sa.ForeignKey("image.image.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("used_by", sa.Uuid, primary_key=True),
        schema=SCHEMA,
    )
    op.create_index("image_use_user_idx", "image_use", ["used_by"], schema=SCHEMA)
    op.create_table(
        "upload",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("owner_id", sa.Uuid, nullable=False),
        sa.Column("object_key", sa.String, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("image_id", sa.Uuid),
        schema=SCHEMA,
    )
    op.create_index("upload_expires_idx", "upload", ["expires_at"], schema=SCHEMA)
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
    for table in ("outbox", "upload", "image_use", "image"):
        op.drop_table(table, schema=SCHEMA)
