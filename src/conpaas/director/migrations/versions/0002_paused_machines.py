"""Time in which a VM was switched off with its host is not charged."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
    op.add_column("resource", sa.Column("paused", moment, nullable=True))
    op.add_column("resource", sa.Column("unbilled", sa.Double(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("resource", "unbilled")
    op.drop_column("resource", "paused")
