"""The Director's tables. Rows are data only: rules live in users, credits, ca, domains, lifecycle and inventory.

Every time is UTC: columns of type `UtcDateTime` take and give aware datetimes; leases and operation times are seconds since
the epoch. Ids are never used twice, because certificates and clouds keep referring to them after a row is gone.
"""

from __future__ import annotations

import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.engine import interfaces

RESOURCE_STATES = ("creating", "running", "deleting", "lost")


def utcnow() -> datetime.datetime:
    """The present moment, aware and in UTC."""
    return datetime.datetime.now(datetime.UTC)


def _on_mariadb(dialect: interfaces.Dialect) -> Any:
    """The types of MySQL and MariaDB if this is one of them, else None. Its module costs a megabyte that other databases can spare."""
    if dialect.name not in {"mysql", "mariadb"}:
        return None
    from sqlalchemy.dialects import mysql

    return mysql


class UtcDateTime(sa.types.TypeDecorator[datetime.datetime]):
    """A moment in time, stored as naive UTC with microseconds on every database."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: interfaces.Dialect) -> sa.types.TypeEngine[Any]:
        mysql = _on_mariadb(dialect)
        return dialect.type_descriptor(mysql.DATETIME(fsp=6) if mysql else sa.DateTime())

    def process_bind_param(self, value: datetime.datetime | None, dialect: interfaces.Dialect) -> datetime.datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a time zone cannot be stored")
        return value.astimezone(datetime.UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime.datetime | None, dialect: interfaces.Dialect) -> datetime.datetime | None:
        return None if value is None else value.replace(tzinfo=datetime.UTC)


class Words(sa.types.TypeDecorator[str]):
    """Text compared byte by byte, also where the database's default would ignore case."""

    impl = sa.String
    cache_ok = True

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: interfaces.Dialect) -> sa.types.TypeEngine[Any]:
        mysql = _on_mariadb(dialect)
        return mysql.VARCHAR(self.length, collation="utf8mb4_bin") if mysql else self.impl_instance


class LongText(sa.types.TypeDecorator[str]):
    """Text of any length; MariaDB's `TEXT` ends at 64 kB."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: interfaces.Dialect) -> sa.types.TypeEngine[Any]:
        mysql = _on_mariadb(dialect)
        return mysql.LONGTEXT() if mysql else self.impl_instance


class Base(orm.DeclarativeBase):
    """Common base, so that one metadata object describes the whole database."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        datetime.datetime: UtcDateTime(),
        float: sa.Double(),
        dict[str, Any]: sa.JSON(),
        list[Any]: sa.JSON(),
    }


class User(Base):
    """Somebody who may own applications; `role` is user or operator.

    `username_key` and `email_key` are the folded forms that must be unique. An account whose address is `unconfirmed` is not active
    until it is confirmed. A quota that is None is none. `warned_at_hours` is the least threshold that the user was warned of while
    the credits lasted no longer; `exhausted` is since when they are used up.
    """

    __tablename__ = "user"
    __table_args__ = {"sqlite_autoincrement": True}

    uid: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    username: orm.Mapped[str] = orm.mapped_column(Words(80))
    username_key: orm.Mapped[str] = orm.mapped_column(Words(160), unique=True)
    email: orm.Mapped[str] = orm.mapped_column(Words(256))
    email_key: orm.Mapped[str] = orm.mapped_column(Words(512), unique=True)
    fname: orm.Mapped[str] = orm.mapped_column(Words(256), default="")
    lname: orm.Mapped[str] = orm.mapped_column(Words(256), default="")
    affiliation: orm.Mapped[str] = orm.mapped_column(Words(256), default="")
    password: orm.Mapped[str] = orm.mapped_column(Words(512))
    created: orm.Mapped[datetime.datetime] = orm.mapped_column(default=utcnow)
    uuid: orm.Mapped[str] = orm.mapped_column(Words(80), default="")
    openid: orm.Mapped[str] = orm.mapped_column(Words(200), default="")
    active: orm.Mapped[bool] = orm.mapped_column(default=True)
    role: orm.Mapped[str] = orm.mapped_column(Words(16), default="user")
    unconfirmed: orm.Mapped[bool] = orm.mapped_column(default=False, server_default=sa.false())
    quota_vms: orm.Mapped[int | None] = orm.mapped_column()
    quota_applications: orm.Mapped[int | None] = orm.mapped_column()
    quota_volumes_mb: orm.Mapped[int | None] = orm.mapped_column()
    warned_at_hours: orm.Mapped[int | None] = orm.mapped_column()
    exhausted: orm.Mapped[datetime.datetime | None] = orm.mapped_column()


class Application(Base):
    """An application; it is *started* while `manager_ip` is set.

    `status` is a state of `conpaas.core.states`; `reason` tells why it is that.
    """

    __tablename__ = "application"
    __table_args__ = (sa.UniqueConstraint("user_id", "name"), {"sqlite_autoincrement": True})

    aid: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(Words(256), default="New Application")
    user_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("user.uid"), index=True)
    status: orm.Mapped[str] = orm.mapped_column(Words(32), default="INIT")
    reason: orm.Mapped[str | None] = orm.mapped_column(LongText())
    cloud: orm.Mapped[str | None] = orm.mapped_column(Words(128))
    manager_ip: orm.Mapped[str | None] = orm.mapped_column(Words(80))
    manager_port: orm.Mapped[int | None] = orm.mapped_column()
    manager_vmid: orm.Mapped[str | None] = orm.mapped_column(Words(128))
    created: orm.Mapped[datetime.datetime] = orm.mapped_column(default=utcnow)

    owner: orm.Mapped[User] = orm.relationship(lazy="raise_on_sql")


class Service(Base):
    """A service of an application; `sid` counts 1, 2, … inside the application and is given by its manager."""

    __tablename__ = "service"
    __table_args__ = (sa.UniqueConstraint("application_id", "sid"), {"sqlite_autoincrement": True})

    rec_id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    sid: orm.Mapped[int] = orm.mapped_column()
    application_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("application.aid", ondelete="CASCADE"), index=True)
    name: orm.Mapped[str] = orm.mapped_column(Words(256))
    type: orm.Mapped[str] = orm.mapped_column(Words(32))
    created: orm.Mapped[datetime.datetime] = orm.mapped_column(default=utcnow)


class Domain(Base):
    """A domain name that a service answers to; it goes with the service, by the database's own rule."""

    __tablename__ = "domain"

    name: orm.Mapped[str] = orm.mapped_column(Words(256), primary_key=True)
    service_rec: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("service.rec_id", ondelete="CASCADE"), index=True)
    claimed: orm.Mapped[datetime.datetime] = orm.mapped_column(default=utcnow)


class Resource(Base):
    """One VM, written down before the cloud is asked for it.

    It costs credits for every hour started between `created` and `ended` (or now) in any state but `creating`; set `created`
    to the moment the VM becomes the user's, and let `credits.settle` set `ended`. Time between `credits.pause` and
    `credits.unpause` (the VM was switched off with its host) is not counted: `unbilled` is its sum, in seconds.
    """

    __tablename__ = "resource"
    __table_args__ = (
        sa.UniqueConstraint("cloud", "vmid"),
        sa.Index("ix_resource_request_key", "request_key"),
        {"sqlite_autoincrement": True},
    )

    rid: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    vmid: orm.Mapped[str | None] = orm.mapped_column(Words(128))
    cloud: orm.Mapped[str] = orm.mapped_column(Words(128))
    app_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("application.aid"), index=True)
    service_id: orm.Mapped[int] = orm.mapped_column(default=0)
    role: orm.Mapped[str] = orm.mapped_column(Words(16))
    node_role: orm.Mapped[str | None] = orm.mapped_column(Words(64))
    ip: orm.Mapped[str | None] = orm.mapped_column(Words(80))
    private_ip: orm.Mapped[str | None] = orm.mapped_column(Words(80))
    request_key: orm.Mapped[str | None] = orm.mapped_column(Words(128))
    request_index: orm.Mapped[int | None] = orm.mapped_column()
    state: orm.Mapped[str] = orm.mapped_column(Words(16), default="creating")
    created: orm.Mapped[datetime.datetime] = orm.mapped_column(default=utcnow)
    ended: orm.Mapped[datetime.datetime | None] = orm.mapped_column()
    paused: orm.Mapped[datetime.datetime | None] = orm.mapped_column()
    unbilled: orm.Mapped[float] = orm.mapped_column(default=0.0, server_default="0")


class Volume(Base):
    """A storage volume of an application; `size` in MB, `vol_id` unknown until the cloud answered.

    `state`: creating, available, attached or deleting. `keep`: it outlives the machines it is attached to, though not its application.
    """

    __tablename__ = "volume"
    __table_args__ = (sa.UniqueConstraint("cloud", "vol_id"), {"sqlite_autoincrement": True})

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    cloud: orm.Mapped[str] = orm.mapped_column(Words(128))
    vol_id: orm.Mapped[str | None] = orm.mapped_column(Words(128))
    name: orm.Mapped[str] = orm.mapped_column(Words(256))
    size: orm.Mapped[int] = orm.mapped_column()
    app_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("application.aid"), index=True)
    service_id: orm.Mapped[int] = orm.mapped_column(default=0)
    vmid: orm.Mapped[str | None] = orm.mapped_column(Words(128))
    device: orm.Mapped[str | None] = orm.mapped_column(Words(64))
    request_key: orm.Mapped[str | None] = orm.mapped_column(Words(128), index=True)
    state: orm.Mapped[str] = orm.mapped_column(Words(16), default="creating")
    created: orm.Mapped[datetime.datetime] = orm.mapped_column(default=utcnow)
    keep: orm.Mapped[bool] = orm.mapped_column(default=False, server_default=sa.false())


class LedgerEntry(Base):
    """One movement of credits; a user's balance is the sum of the amounts. Rows are only ever added."""

    __tablename__ = "ledger"
    __table_args__ = (sa.UniqueConstraint("rid", "hour_index"), {"sqlite_autoincrement": True})

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    uid: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("user.uid"), index=True)
    amount: orm.Mapped[int] = orm.mapped_column()
    kind: orm.Mapped[str] = orm.mapped_column(Words(16))
    rid: orm.Mapped[int | None] = orm.mapped_column()
    vm: orm.Mapped[str | None] = orm.mapped_column(Words(300))
    hour_index: orm.Mapped[int | None] = orm.mapped_column()
    at: orm.Mapped[datetime.datetime] = orm.mapped_column(default=utcnow)
    note: orm.Mapped[str | None] = orm.mapped_column(Words(512))


class NodeRequest(Base):
    """A manager's request for nodes or volumes, known by its key: the same key gets the same answer."""

    __tablename__ = "node_request"

    key: orm.Mapped[str] = orm.mapped_column(Words(128), primary_key=True)
    app_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("application.aid", ondelete="CASCADE"), index=True)
    service_id: orm.Mapped[int] = orm.mapped_column(default=0)
    kind: orm.Mapped[str] = orm.mapped_column(Words(32))
    args: orm.Mapped[dict[str, Any]] = orm.mapped_column(default=dict)
    status: orm.Mapped[str] = orm.mapped_column(Words(16), default="pending")
    result: orm.Mapped[Any | None] = orm.mapped_column(sa.JSON())
    error: orm.Mapped[str | None] = orm.mapped_column(LongText())
    created: orm.Mapped[datetime.datetime] = orm.mapped_column(default=utcnow)
    lease_owner: orm.Mapped[str | None] = orm.mapped_column(Words(128))
    lease_until: orm.Mapped[float | None] = orm.mapped_column()


class Certificate(Base):
    """A certificate that this Director issued; `serial` in lower-case hexadecimal without leading zeros."""

    __tablename__ = "certificate"

    serial: orm.Mapped[str] = orm.mapped_column(Words(64), primary_key=True)
    role: orm.Mapped[str] = orm.mapped_column(Words(16))
    uid: orm.Mapped[int | None] = orm.mapped_column(index=True)
    aid: orm.Mapped[int | None] = orm.mapped_column(index=True)
    issued: orm.Mapped[datetime.datetime] = orm.mapped_column(default=utcnow)
    expires: orm.Mapped[datetime.datetime] = orm.mapped_column()
    fingerprint: orm.Mapped[str] = orm.mapped_column(Words(128))
    revoked: orm.Mapped[datetime.datetime | None] = orm.mapped_column()


class Enrolment(Base):
    """A one-time permission for a VM to get its certificate; only the token's SHA-256 (hexadecimal) is kept."""

    __tablename__ = "enrolment"

    token_hash: orm.Mapped[str] = orm.mapped_column(Words(64), primary_key=True)
    role: orm.Mapped[str] = orm.mapped_column(Words(16))
    uid: orm.Mapped[int] = orm.mapped_column()
    aid: orm.Mapped[int] = orm.mapped_column(index=True)
    vm: orm.Mapped[str] = orm.mapped_column(Words(300), default="")
    expires: orm.Mapped[datetime.datetime] = orm.mapped_column(index=True)
    csr_sha256: orm.Mapped[str | None] = orm.mapped_column(Words(64))
    certificate: orm.Mapped[str | None] = orm.mapped_column(LongText())


class Invitation(Base):
    """Permission to make one account; only the token's SHA-256 (hexadecimal) is kept. `uid` is the account that was made by it."""

    __tablename__ = "invitation"
    __table_args__ = {"sqlite_autoincrement": True}

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    token_hash: orm.Mapped[str] = orm.mapped_column(Words(64), unique=True)
    email: orm.Mapped[str] = orm.mapped_column(Words(256), default="")
    credit: orm.Mapped[int] = orm.mapped_column(default=0)
    invited_by: orm.Mapped[str] = orm.mapped_column(Words(128), default="")
    created: orm.Mapped[datetime.datetime] = orm.mapped_column(default=utcnow)
    expires: orm.Mapped[datetime.datetime] = orm.mapped_column(index=True)
    used: orm.Mapped[datetime.datetime | None] = orm.mapped_column()
    uid: orm.Mapped[int | None] = orm.mapped_column()


class Confirmation(Base):
    """What confirms that an address is that of an account's owner, and makes it the account's; only the token's SHA-256 is kept."""

    __tablename__ = "confirmation"

    token_hash: orm.Mapped[str] = orm.mapped_column(Words(64), primary_key=True)
    uid: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("user.uid", ondelete="CASCADE"), index=True)
    email: orm.Mapped[str] = orm.mapped_column(Words(256))
    expires: orm.Mapped[datetime.datetime] = orm.mapped_column(index=True)


class Notice(Base):
    """A message to a user that is still to be sent; its text is made when it is, from `kind` and `data`."""

    __tablename__ = "notice"
    __table_args__ = {"sqlite_autoincrement": True}

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    uid: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("user.uid", ondelete="CASCADE"), index=True)
    kind: orm.Mapped[str] = orm.mapped_column(Words(32))
    data: orm.Mapped[dict[str, Any]] = orm.mapped_column(default=dict)
    created: orm.Mapped[datetime.datetime] = orm.mapped_column(default=utcnow)
    attempts: orm.Mapped[int] = orm.mapped_column(default=0)
    due: orm.Mapped[datetime.datetime] = orm.mapped_column(default=utcnow, index=True)


class SweepFinding(Base):
    """What the sweeper found and did; the oldest go when there are many. `at` is seconds since the epoch."""

    __tablename__ = "sweep_finding"
    __table_args__ = {"sqlite_autoincrement": True}

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    at: orm.Mapped[float] = orm.mapped_column()
    kind: orm.Mapped[str] = orm.mapped_column(Words(32))
    cloud: orm.Mapped[str | None] = orm.mapped_column(Words(128))
    vmid: orm.Mapped[str | None] = orm.mapped_column(Words(128))
    text: orm.Mapped[str] = orm.mapped_column(LongText())


class OidcLogin(Base):
    """A login through an identity provider that has begun; only the SHA-256 of `state` is kept."""

    __tablename__ = "oidc_login"

    state_hash: orm.Mapped[str] = orm.mapped_column(Words(64), primary_key=True)
    provider: orm.Mapped[str] = orm.mapped_column(Words(64))
    nonce: orm.Mapped[str] = orm.mapped_column(Words(128))
    verifier: orm.Mapped[str] = orm.mapped_column(Words(128))
    redirect_uri: orm.Mapped[str] = orm.mapped_column(Words(2048))
    expires: orm.Mapped[datetime.datetime] = orm.mapped_column(index=True)


class OidcIdentity(Base):
    """A person as an identity provider knows them, and the account that is theirs."""

    __tablename__ = "oidc_identity"
    __table_args__ = (sa.UniqueConstraint("issuer", "subject"), {"sqlite_autoincrement": True})

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    uid: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("user.uid", ondelete="CASCADE"), index=True)
    issuer: orm.Mapped[str] = orm.mapped_column(Words(255))
    subject: orm.Mapped[str] = orm.mapped_column(Words(255))
    linked: orm.Mapped[datetime.datetime] = orm.mapped_column(default=utcnow)


class Operation(Base):
    """An operation on an application. `active_target` is the target while unfinished, else NULL: at most one at a time."""

    __tablename__ = "operation"
    __table_args__ = (sa.Index("ix_operation_target_started", "target", "started"),)

    id: orm.Mapped[str] = orm.mapped_column(Words(64), primary_key=True)
    kind: orm.Mapped[str] = orm.mapped_column(Words(64))
    target: orm.Mapped[int] = orm.mapped_column()
    active_target: orm.Mapped[int | None] = orm.mapped_column(unique=True)
    args: orm.Mapped[dict[str, Any]] = orm.mapped_column(default=dict)
    requester: orm.Mapped[str] = orm.mapped_column(Words(256), default="")
    status: orm.Mapped[str] = orm.mapped_column(Words(16), index=True)
    data: orm.Mapped[dict[str, Any]] = orm.mapped_column(default=dict)
    notes: orm.Mapped[list[Any]] = orm.mapped_column(default=list)
    error: orm.Mapped[str | None] = orm.mapped_column(LongText())
    started: orm.Mapped[float] = orm.mapped_column()
    finished: orm.Mapped[float | None] = orm.mapped_column()
    lease_owner: orm.Mapped[str | None] = orm.mapped_column(Words(128))
    lease_until: orm.Mapped[float | None] = orm.mapped_column()


class OperationStep(Base):
    """What became of one step of an operation."""

    __tablename__ = "operation_step"

    operation_id: orm.Mapped[str] = orm.mapped_column(Words(64), sa.ForeignKey("operation.id", ondelete="CASCADE"), primary_key=True)
    position: orm.Mapped[int] = orm.mapped_column(primary_key=True, autoincrement=False)
    name: orm.Mapped[str] = orm.mapped_column(Words(64))
    status: orm.Mapped[str] = orm.mapped_column(Words(16))
    at: orm.Mapped[float] = orm.mapped_column()


class LoginAttempt(Base):
    """Failed logins of one user name or one address (`bucket`), as `throttle` counts them."""

    __tablename__ = "login_attempt"

    bucket: orm.Mapped[str] = orm.mapped_column(Words(96), primary_key=True)
    failures: orm.Mapped[int] = orm.mapped_column(default=0)
    last: orm.Mapped[float] = orm.mapped_column(index=True)
    blocked_until: orm.Mapped[float] = orm.mapped_column(default=0.0)


class Lease(Base):
    """Who of several Director processes runs a background task at present."""

    __tablename__ = "lease"

    name: orm.Mapped[str] = orm.mapped_column(Words(64), primary_key=True)
    owner: orm.Mapped[str] = orm.mapped_column(Words(128))
    until: orm.Mapped[float] = orm.mapped_column()
