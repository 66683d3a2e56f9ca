"""The first schema."""

from __future__ import annotations

import datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _words(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(mysql.VARCHAR(length, collation="utf8mb4_bin"), "mysql", "mariadb")


def _long_text() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def _moment() -> sa.types.TypeEngine[datetime.datetime]:
    return sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def _create_certificate() -> None:
    op.create_table(
        "certificate",
        sa.Column("serial", _words(64), nullable=False),
        sa.Column("role", _words(16), nullable=False),
        sa.Column("uid", sa.Integer(), nullable=True),
        sa.Column("aid", sa.Integer(), nullable=True),
        sa.Column("issued", _moment(), nullable=False),
        sa.Column("expires", _moment(), nullable=False),
        sa.Column("fingerprint", _words(128), nullable=False),
        sa.Column("revoked", _moment(), nullable=True),
        sa.PrimaryKeyConstraint("serial", name="pk_certificate"),
    )
    op.create_index("ix_certificate_aid", "certificate", ["aid"], unique=False)
    op.create_index("ix_certificate_uid", "certificate", ["uid"], unique=False)


def _create_enrolment() -> None:
    op.create_table(
        "enrolment",
        sa.Column("token_hash", _words(64), nullable=False),
        sa.Column("role", _words(16), nullable=False),
        sa.Column("uid", sa.Integer(), nullable=False),
        sa.Column("aid", sa.Integer(), nullable=False),
        sa.Column("vm", _words(300), nullable=False),
        sa.Column("expires", _moment(), nullable=False),
        sa.Column("csr_sha256", _words(64), nullable=True),
        sa.Column("certificate", _long_text(), nullable=True),
        sa.PrimaryKeyConstraint("token_hash", name="pk_enrolment"),
    )
    op.create_index("ix_enrolment_aid", "enrolment", ["aid"], unique=False)
    op.create_index("ix_enrolment_expires", "enrolment", ["expires"], unique=False)


def _create_lease() -> None:
    op.create_table(
        "lease",
        sa.Column("name", _words(64), nullable=False),
        sa.Column("owner", _words(128), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_lease"),
    )


def _create_login_attempt() -> None:
    op.create_table(
        "login_attempt",
        sa.Column("bucket", _words(96), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last", sa.Double(), nullable=False),
        sa.Column("blocked_until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("bucket", name="pk_login_attempt"),
    )
    op.create_index("ix_login_attempt_last", "login_attempt", ["last"], unique=False)


def _create_operation() -> None:
    op.create_table(
        "operation",
        sa.Column("id", _words(64), nullable=False),
        sa.Column("kind", _words(64), nullable=False),
        sa.Column("target", sa.Integer(), nullable=False),
        sa.Column("active_target", sa.Integer(), nullable=True),
        sa.Column("args", sa.JSON(), nullable=False),
        sa.Column("requester", _words(256), nullable=False),
        sa.Column("status", _words(16), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("notes", sa.JSON(), nullable=False),
        sa.Column("error", _long_text(), nullable=True),
        sa.Column("started", sa.Double(), nullable=False),
        sa.Column("finished", sa.Double(), nullable=True),
        sa.Column("lease_owner", _words(128), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_operation"),
        sa.UniqueConstraint("active_target", name="uq_operation_active_target"),
    )
    op.create_index("ix_operation_status", "operation", ["status"], unique=False)
    op.create_index("ix_operation_target_started", "operation", ["target", "started"], unique=False)


def _create_user() -> None:
    op.create_table(
        "user",
        sa.Column("uid", sa.Integer(), nullable=False),
        sa.Column("username", _words(80), nullable=False),
        sa.Column("username_key", _words(160), nullable=False),
        sa.Column("email", _words(256), nullable=False),
        sa.Column("email_key", _words(512), nullable=False),
        sa.Column("fname", _words(256), nullable=False),
        sa.Column("lname", _words(256), nullable=False),
        sa.Column("affiliation", _words(256), nullable=False),
        sa.Column("password", _words(512), nullable=False),
        sa.Column("created", _moment(), nullable=False),
        sa.Column("uuid", _words(80), nullable=False),
        sa.Column("openid", _words(200), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("role", _words(16), nullable=False),
        sa.PrimaryKeyConstraint("uid", name="pk_user"),
        sa.UniqueConstraint("email_key", name="uq_user_email_key"),
        sa.UniqueConstraint("username_key", name="uq_user_username_key"),
        sqlite_autoincrement=True,
    )


def _create_application() -> None:
    op.create_table(
        "application",
        sa.Column("aid", sa.Integer(), nullable=False),
        sa.Column("name", _words(256), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("status", _words(32), nullable=False),
        sa.Column("reason", _long_text(), nullable=True),
        sa.Column("cloud", _words(128), nullable=True),
        sa.Column("manager_ip", _words(80), nullable=True),
        sa.Column("manager_port", sa.Integer(), nullable=True),
        sa.Column("manager_vmid", _words(128), nullable=True),
        sa.Column("created", _moment(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user.uid"], name="fk_application_user_id_user"),
        sa.PrimaryKeyConstraint("aid", name="pk_application"),
        sa.UniqueConstraint("user_id", "name", name="uq_application_user_id_name"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_application_user_id", "application", ["user_id"], unique=False)


def _create_ledger() -> None:
    op.create_table(
        "ledger",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uid", sa.Integer(), nullable=False),
        sa.Column("amount", sa.Integer(), nullable=False),
        sa.Column("kind", _words(16), nullable=False),
        sa.Column("rid", sa.Integer(), nullable=True),
        sa.Column("vm", _words(300), nullable=True),
        sa.Column("hour_index", sa.Integer(), nullable=True),
        sa.Column("at", _moment(), nullable=False),
        sa.Column("note", _words(512), nullable=True),
        sa.ForeignKeyConstraint(["uid"], ["user.uid"], name="fk_ledger_uid_user"),
        sa.PrimaryKeyConstraint("id", name="pk_ledger"),
        sa.UniqueConstraint("rid", "hour_index", name="uq_ledger_rid_hour_index"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_ledger_uid", "ledger", ["uid"], unique=False)


def _create_operation_step() -> None:
    op.create_table(
        "operation_step",
        sa.Column("operation_id", _words(64), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", _words(64), nullable=False),
        sa.Column("status", _words(16), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["operation_id"], ["operation.id"], name="fk_operation_step_operation_id_operation", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("operation_id", "position", name="pk_operation_step"),
    )


def _create_node_request() -> None:
    op.create_table(
        "node_request",
        sa.Column("key", _words(128), nullable=False),
        sa.Column("app_id", sa.Integer(), nullable=False),
        sa.Column("service_id", sa.Integer(), nullable=False),
        sa.Column("kind", _words(32), nullable=False),
        sa.Column("args", sa.JSON(), nullable=False),
        sa.Column("status", _words(16), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("error", _long_text(), nullable=True),
        sa.Column("created", _moment(), nullable=False),
        sa.Column("lease_owner", _words(128), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["app_id"], ["application.aid"], name="fk_node_request_app_id_application", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key", name="pk_node_request"),
    )
    op.create_index("ix_node_request_app_id", "node_request", ["app_id"], unique=False)


def _create_resource() -> None:
    op.create_table(
        "resource",
        sa.Column("rid", sa.Integer(), nullable=False),
        sa.Column("vmid", _words(128), nullable=True),
        sa.Column("cloud", _words(128), nullable=False),
        sa.Column("app_id", sa.Integer(), nullable=False),
        sa.Column("service_id", sa.Integer(), nullable=False),
        sa.Column("role", _words(16), nullable=False),
        sa.Column("node_role", _words(64), nullable=True),
        sa.Column("ip", _words(80), nullable=True),
        sa.Column("private_ip", _words(80), nullable=True),
        sa.Column("request_key", _words(128), nullable=True),
        sa.Column("request_index", sa.Integer(), nullable=True),
        sa.Column("state", _words(16), nullable=False),
        sa.Column("created", _moment(), nullable=False),
        sa.Column("ended", _moment(), nullable=True),
        sa.ForeignKeyConstraint(["app_id"], ["application.aid"], name="fk_resource_app_id_application"),
        sa.PrimaryKeyConstraint("rid", name="pk_resource"),
        sa.UniqueConstraint("cloud", "vmid", name="uq_resource_cloud_vmid"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_resource_app_id", "resource", ["app_id"], unique=False)
    op.create_index("ix_resource_request_key", "resource", ["request_key"], unique=False)


def _create_service() -> None:
    op.create_table(
        "service",
        sa.Column("rec_id", sa.Integer(), nullable=False),
        sa.Column("sid", sa.Integer(), nullable=False),
        sa.Column("application_id", sa.Integer(), nullable=False),
        sa.Column("name", _words(256), nullable=False),
        sa.Column("type", _words(32), nullable=False),
        sa.Column("created", _moment(), nullable=False),
        sa.ForeignKeyConstraint(["application_id"], ["application.aid"], name="fk_service_application_id_application", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("rec_id", name="pk_service"),
        sa.UniqueConstraint("application_id", "sid", name="uq_service_application_id_sid"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_service_application_id", "service", ["application_id"], unique=False)


def _create_volume() -> None:
    op.create_table(
        "volume",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("cloud", _words(128), nullable=False),
        sa.Column("vol_id", _words(128), nullable=True),
        sa.Column("name", _words(256), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("app_id", sa.Integer(), nullable=False),
        sa.Column("service_id", sa.Integer(), nullable=False),
        sa.Column("vmid", _words(128), nullable=True),
        sa.Column("device", _words(64), nullable=True),
        sa.Column("request_key", _words(128), nullable=True),
        sa.Column("state", _words(16), nullable=False),
        sa.Column("created", _moment(), nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["application.aid"], name="fk_volume_app_id_application"),
        sa.PrimaryKeyConstraint("id", name="pk_volume"),
        sa.UniqueConstraint("cloud", "vol_id", name="uq_volume_cloud_vol_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_volume_app_id", "volume", ["app_id"], unique=False)
    op.create_index("ix_volume_request_key", "volume", ["request_key"], unique=False)


def upgrade() -> None:
    _create_certificate()
    _create_enrolment()
    _create_lease()
    _create_login_attempt()
    _create_operation()
    _create_user()
    _create_application()
    _create_ledger()
    _create_operation_step()
    _create_node_request()
    _create_resource()
    _create_service()
    _create_volume()


def downgrade() -> None:
    for table in (
        "volume",
        "service",
        "resource",
        "node_request",
        "operation_step",
        "ledger",
        "application",
        "user",
        "operation",
        "login_attempt",
        "lease",
        "enrolment",
        "certificate",
    ):
        op.drop_table(table)
