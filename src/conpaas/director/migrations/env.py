"""Alembic's environment: runs on the connection it is handed, inside that connection's transaction."""

from __future__ import annotations

from alembic import context

from conpaas.director import models

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=models.Base.metadata, transactional_ddl=True)
context.run_migrations()
