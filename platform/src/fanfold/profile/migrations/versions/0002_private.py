"""Private accounts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "profile"


def upgrade() -> None:
    private = sa.Column("private", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("user", private, schema=SCHEMA)


def downgrade() -> None:
    op.drop_column("user", "private", schema=SCHEMA)
