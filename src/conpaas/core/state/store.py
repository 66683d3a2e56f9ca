"""The durable state of one application: everything a manager must still know after it was killed."""

from __future__ import annotations

import pathlib

from conpaas.core import states
from conpaas.core.state import database, disks, measurements, operations, records, settings

APPLICATION = 0
"""The service id of the application manager itself."""


class Store:
    """All rooms of a manager's state in one SQLite file. What a method wrote is on disk when it returns.

    Raises `errors.WrongState` when another process uses the file.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.db = database.Database(path)
        self.services = records.Services(self.db)
        self.nodes = records.Nodes(self.db)
        self.volumes = records.Volumes(self.db)
        self.disks = disks.Disks(self.db)
        self.scripts = records.Scripts(self.db)
        self.codes = records.Codes(self.db)
        self.measurements = measurements.Measurements(self.db)
        self.operations = operations.SqliteOperationStore(self.db, self.services)
        self._settings: dict[int, settings.Settings] = {}
        if self.services.find(APPLICATION) is None:
            self.services.create("application", service_id=APPLICATION, state=states.State.RUNNING)

    def settings(self, service_id: int) -> settings.Settings:
        with self.db.lock:
            if service_id not in self._settings:
                self._settings[service_id] = settings.Settings(self.db, service_id)
            return self._settings[service_id]

    def close(self) -> None:
        self.db.close()
