"""Domain names that services answer to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "domain",
        sa.Column("name", sa.String(256).with_variant(mysql.VARCHAR(256, collation="utf8mb4_bin"), "mysql", "mariadb"), nullable=False),
        sa.Column("service_rec", sa.Integer(), nullable=False),
        sa.Column("claimed", sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb"), nullable=False),
        sa.ForeignKeyConstraint(["service_rec"], ["service.rec_id"], name="fk_domain_service_rec_service", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("name", name="pk_domain"),
    )
    op.create_index("ix_domain_service_rec", "domain", ["service_rec"], unique=False)


def downgrade() -> None:
    op.drop_table("domain")
