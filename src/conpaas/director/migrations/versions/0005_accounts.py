"""Quotas, invitations, confirmed addresses, notices, findings of the sweeper, and logins through identity providers."""

from __future__ import annotations

import datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

QUOTAS = ("quota_vms", "quota_applications", "quota_volumes_mb")
TABLES = ("invitation", "confirmation", "notice", "sweep_finding", "oidc_login", "oidc_identity")


def _words(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(mysql.VARCHAR(length, collation="utf8mb4_bin"), "mysql", "mariadb")


def _moment() -> sa.types.TypeEngine[datetime.datetime]:
    return sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def _of_user(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["uid"], ["user.uid"], name=f"fk_{table}_uid_user", ondelete="CASCADE")


def _create_registration() -> None:
    op.create_table(
        "invitation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("token_hash", _words(64), nullable=False),
        sa.Column("email", _words(256), nullable=False),
        sa.Column("credit", sa.Integer(), nullable=False),
        sa.Column("invited_by", _words(128), nullable=False),
        sa.Column("created", _moment(), nullable=False),
        sa.Column("expires", _moment(), nullable=False),
        sa.Column("used", _moment(), nullable=True),
        sa.Column("uid", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_invitation"),
        sa.UniqueConstraint("token_hash", name="uq_invitation_token_hash"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_invitation_expires", "invitation", ["expires"], unique=False)
    op.create_table(
        "confirmation",
        sa.Column("token_hash", _words(64), nullable=False),
        sa.Column("uid", sa.Integer(), nullable=False),
        sa.Column("email", _words(256), nullable=False),
        sa.Column("expires", _moment(), nullable=False),
        _of_user("confirmation"),
        sa.PrimaryKeyConstraint("token_hash", name="pk_confirmation"),
    )
    op.create_index("ix_confirmation_uid", "confirmation", ["uid"], unique=False)
    op.create_index("ix_confirmation_expires", "confirmation", ["expires"], unique=False)


def _create_reports() -> None:
    op.create_table(
        "notice",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uid", sa.Integer(), nullable=False),
        sa.Column("kind", _words(32), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("created", _moment(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due", _moment(), nullable=False),
        _of_user("notice"),
        sa.PrimaryKeyConstraint("id", name="pk_notice"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_notice_uid", "notice", ["uid"], unique=False)
    op.create_index("ix_notice_due", "notice", ["due"], unique=False)
    op.create_table(
        "sweep_finding",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", _words(32), nullable=False),
        sa.Column("cloud", _words(128), nullable=True),
        sa.Column("vmid", _words(128), nullable=True),
        sa.Column("text", sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sweep_finding"),
        sqlite_autoincrement=True,
    )


def _create_oidc() -> None:
    op.create_table(
        "oidc_login",
        sa.Column("state_hash", _words(64), nullable=False),
        sa.Column("provider", _words(64), nullable=False),
        sa.Column("nonce", _words(128), nullable=False),
        sa.Column("verifier", _words(128), nullable=False),
        sa.Column("redirect_uri", _words(2048), nullable=False),
        sa.Column("expires", _moment(), nullable=False),
        sa.PrimaryKeyConstraint("state_hash", name="pk_oidc_login"),
    )
    op.create_index("ix_oidc_login_expires", "oidc_login", ["expires"], unique=False)
    op.create_table(
        "oidc_identity",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uid", sa.Integer(), nullable=False),
        sa.Column("issuer", _words(255), nullable=False),
        sa.Column("subject", _words(255), nullable=False),
        sa.Column("linked", _moment(), nullable=False),
        _of_user("oidc_identity"),
        sa.PrimaryKeyConstraint("id", name="pk_oidc_identity"),
        sa.UniqueConstraint("issuer", "subject", name="uq_oidc_identity_issuer_subject"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_oidc_identity_uid", "oidc_identity", ["uid"], unique=False)


def upgrade() -> None:
    op.add_column("user", sa.Column("unconfirmed", sa.Boolean(), nullable=False, server_default=sa.false()))
    for name in (*QUOTAS, "warned_at_hours"):
        op.add_column("user", sa.Column(name, sa.Integer(), nullable=True))
    op.add_column("user", sa.Column("exhausted", _moment(), nullable=True))
    _create_registration()
    _create_reports()
    _create_oidc()


def downgrade() -> None:
    for name in reversed(TABLES):
        op.drop_table(name)
    for name in ("exhausted", "warned_at_hours", *QUOTAS, "unconfirmed"):
        op.drop_column("user", name)
