"""The tables of a manager's store and how an older file becomes a newer one."""

from __future__ import annotations

VERSION_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE services (
    id INTEGER PRIMARY KEY,
    type TEXT NOT NULL,
    state TEXT NOT NULL,
    stable_state TEXT NOT NULL,
    cloud TEXT NOT NULL DEFAULT 'default',
    request TEXT UNIQUE,
    created REAL NOT NULL
);
CREATE TABLE nodes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    service_id INTEGER NOT NULL,
    status TEXT NOT NULL,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    added REAL NOT NULL
);
CREATE INDEX nodes_of_service ON nodes (service_id, seq);
CREATE TABLE volumes (
    name TEXT PRIMARY KEY,
    service_id INTEGER NOT NULL,
    node_id TEXT NOT NULL,
    vol_id TEXT,
    size INTEGER NOT NULL,
    dev_name TEXT NOT NULL,
    cloud TEXT NOT NULL,
    status TEXT NOT NULL,
    operation TEXT NOT NULL,
    created REAL NOT NULL,
    UNIQUE (node_id, dev_name)
);
CREATE INDEX volumes_of_service ON volumes (service_id);
CREATE TABLE settings (
    service_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (service_id, key)
) WITHOUT ROWID;
CREATE TABLE scripts (service_id INTEGER PRIMARY KEY, content TEXT NOT NULL);
CREATE TABLE state_log (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    service_id INTEGER NOT NULL,
    time REAL NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL
);
CREATE INDEX state_log_of_service ON state_log (service_id, seq);
CREATE TABLE operations (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    target INTEGER NOT NULL,
    args TEXT NOT NULL,
    data TEXT NOT NULL,
    requester TEXT NOT NULL,
    status TEXT NOT NULL,
    error TEXT,
    started REAL NOT NULL,
    finished REAL
);
CREATE INDEX operations_of_target ON operations (target, seq);
CREATE UNIQUE INDEX one_operation_per_target ON operations (target) WHERE status IN ('RUNNING', 'UNDOING');
CREATE TABLE operation_steps (
    operation_id TEXT NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    at REAL,
    PRIMARY KEY (operation_id, position)
) WITHOUT ROWID;
CREATE TABLE operation_notes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    operation_id TEXT NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    time REAL NOT NULL,
    text TEXT NOT NULL
);
CREATE INDEX notes_of_operation ON operation_notes (operation_id, seq);
CREATE TABLE code_versions (
    service_id INTEGER NOT NULL,
    id TEXT NOT NULL,
    filename TEXT NOT NULL,
    description TEXT NOT NULL,
    time REAL NOT NULL,
    kind TEXT NOT NULL,
    path TEXT NOT NULL,
    current INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (service_id, id)
) WITHOUT ROWID;
"""

VERSION_2 = """
CREATE TABLE disks (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    service_id INTEGER NOT NULL,
    role TEXT NOT NULL,
    size INTEGER NOT NULL,
    cloud TEXT NOT NULL,
    operation TEXT NOT NULL,
    asked INTEGER NOT NULL DEFAULT 0,
    vol_id TEXT,
    node_id TEXT UNIQUE,
    dev_name TEXT,
    former TEXT,
    spare_since REAL
);
CREATE INDEX disks_of_service ON disks (service_id);
"""

VERSION_3 = """
ALTER TABLE nodes ADD COLUMN leaves_at REAL;
ALTER TABLE nodes ADD COLUMN heir TEXT;
"""

VERSION_4 = """
CREATE TABLE measurements (
    service_id INTEGER NOT NULL,
    method TEXT NOT NULL,
    place INTEGER NOT NULL,
    at REAL NOT NULL,
    numbers TEXT NOT NULL,
    PRIMARY KEY (service_id, method, place)
) WITHOUT ROWID;
"""

MIGRATIONS: tuple[str, ...] = (VERSION_1, VERSION_2, VERSION_3, VERSION_4)
"""Scripts in order; the file's `user_version` counts those applied. Add to the end, never change one that was released."""
