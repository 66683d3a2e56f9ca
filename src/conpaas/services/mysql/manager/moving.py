"""Data that comes in and goes out as SQL."""

from __future__ import annotations

import tempfile
from typing import Any, Final

from conpaas.core import errors, expose, file, params, rpc
from conpaas.services.mysql import names, spec
from conpaas.services.mysql.agent import client
from conpaas.services.mysql.manager import accounts

_AS_TEXT: Final = 64 * 1024 * 1024
"""Bytes of a dump that fit into one JSON text."""
_LOADED: Final = "loaded_dumps"
_KEYS_KEPT: Final = 100
_DATABASE = params.Param("database", params.Text(max_length=64), None, help="The database; without it, what the dump itself names.")
_ONE = params.Param("database", params.Text(max_length=64), None, help="One database; without it, all that users have.")
_COMPRESSION = params.Param("compression", params.Choice(spec.COMPRESSIONS), "none", help="How the file is packed.")


class DumpCalls(accounts.AccountCalls):
    """Dumps."""

    @expose.expose(
        "UPLOAD",
        params.Param("mysqldump_file", params.Upload(), help="SQL, as it is or packed with gzip, zstd, xz or bzip2."),
        _DATABASE,
        params.Param("fresh", params.Boolean(), False, help="Replace the database in one go, once all was read without an error."),
        params.Param("request", params.Text(max_length=128), None, help="A key: a dump that came by the same one is not run again."),
    )
    def load_dump(self, mysqldump_file: params.UploadedFile, database: str | None, fresh: bool, request: str | None) -> dict[str, Any]:
        """Run the statements of a dump. With `fresh` the database has all of it or is as before."""
        self.check_state("RUNNING")
        if request is not None and request in self.settings.get(_LOADED, []):
            return {}
        try:
            if database is not None:
                names.check_database(database)
            told = client.load_dump(self.agents, self.leader(), mysqldump_file.path, database, fresh=fresh)
        except errors.ConPaaSError as error:
            raise errors.OperationFailed(f"Could not upload mysqldump_file: {str(error).rstrip('.')}.") from error
        if request is not None:
            self.settings[_LOADED] = [*self.settings.get(_LOADED, []), request][-_KEYS_KEPT:]
        return dict(told)

    @expose.expose("GET")
    def get_load_progress(self) -> dict[str, Any]:
        """Tell how far the dump is that is being loaded (`bytes` of `total`, `lines`), or how the last one ended; null: there was none."""
        found = [{**told, "node": key} for key, told in self._loads().items() if told["started"]]
        found.sort(key=lambda told: (told["running"], told["started"]))
        return {"progress": found[-1] if found else None}

    @expose.expose("POST")
    def cancel_load(self) -> dict[str, Any]:
        """Stop the dump that is being loaded; what it has done so far stays, except with `fresh`."""
        running = [key for key, told in self._loads().items() if told["running"]]
        return {"cancelled": any([client.cancel_load(self.agents, self.get_node(key)) for key in running])}

    def _loads(self) -> dict[str, dict[str, Any]]:
        """What the members that answer tell of dumps, by node id."""
        found = self.agents.each(self.members_in_order(), lambda one: client.load_progress(self.agents, one))
        return {key: told for key, told in found.items() if not isinstance(told, errors.ConPaaSError)}

    @expose.expose("GET", _ONE)
    def sqldump(self, database: str | None) -> str:
        """A dump as one text. Large ones have to be asked for with download_dump."""
        found = self.download_dump(database, "none")
        try:
            if found.path.stat().st_size > _AS_TEXT:
                raise errors.OperationFailed(
                    f"The dump has more than {_AS_TEXT >> 20} MB, too much for one text.", hint="use download_dump, or cps-mysql dump"
                )
            return found.path.read_text(encoding="utf-8", errors="backslashreplace")
        finally:
            found.path.unlink(missing_ok=True)

    @expose.expose("GET", _ONE, _COMPRESSION)
    def download_dump(self, database: str | None, compression: str) -> rpc.FileDownload:
        """A consistent dump as a file, without the accounts and the server's own tables."""
        self.check_state("RUNNING")
        if database is not None:
            names.check_database(database)
        spool = self.data_dir / "dumps"
        spool.mkdir(mode=0o700, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=spool, delete=False) as place:
            pass
        path = spool / place.name
        try:
            client.sqldump(self.agents, self.leader(), path, database, compression)
        except errors.ConPaaSError as error:
            path.unlink(missing_ok=True)
            raise errors.OperationFailed(f"Failed to run mysqldump: {error}") from error
        suffix = {"none": "sql", "gz": "sql.gz", "zst": "sql.zst"}[compression]
        return rpc.FileDownload(f"{database or 'databases'}.{suffix}", path, remove=True)

    def tidy_dumps(self) -> None:
        """Remove what a manager that was killed left of dumps."""
        file.remove_tree(self.data_dir / "dumps")
