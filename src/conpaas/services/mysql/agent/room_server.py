"""The database server of a node, as it is seen by who keeps an eye on the room on its disk (see `room`)."""

from __future__ import annotations

from typing import Final

from conpaas.core import errors
from conpaas.services.mysql.agent import health, member, room
from conpaas.services.mysql.workload import status

_ANSWER_TIMEOUT: Final = 1.2
"""Seconds that the server has for an answer."""


class RoomServer:
    """What `room.Keeper` asks for, done by the server of this node; and what is to be said about its room."""

    def __init__(self, own: member.Member) -> None:
        self._member = own
        self.keeper = room.Keeper(own.notes, self)

    # What others want to know

    def scarce(self) -> str | None:
        """What is to be said about the room on the disk, if it is scarce."""
        found = self.measure()
        if not found or not (found.scarce or self.keeper.out):
            return None
        return f"{found}: it takes no part until there is more room." if self.keeper.out else f"{found}."

    def lacking(self) -> room.Room | None:
        """The room there is, if a server that does not run had better not be started in it."""
        found = self.measure()
        return found if found and found.used_up and not self.working() else None

    # For the keeper

    def measure(self) -> room.Room | None:
        """The room on the disk of this node; None when it has none of its own yet."""
        disk = self._member.disk()
        try:
            return room.Room.of(disk) if disk else None
        except OSError:
            return None

    def wanted(self) -> bool:
        return self._member.wanted()

    def working(self) -> bool:
        return self.wanted() and self._member.daemon().running

    def out_of_step(self) -> bool:
        if not self._member.daemon().running or not self._member.is_open():
            return True
        try:
            return not status.seen(status.ask(self._member.layout.socket, _ANSWER_TIMEOUT))["ready"]
        except errors.ConPaaSError:
            return False  # it holds up the others, perhaps, but that is not known

    def stand_aside(self, aside: bool, patience: float) -> None:
        settings, server = self._member.settings(), self._member.server()
        weight = 0 if aside and len(settings.members) == 2 else 1  # of more, each is a vote that the others may need
        server.configure(self._member.render(settings, server, weight))
        self._set_weight(weight)  # first: a server that holds up the others takes no more such statements after the next one
        self._member.desync(aside, patience)

    def follows(self) -> bool:
        try:
            with self._member.connection(_ANSWER_TIMEOUT) as connection:
                status.rows(connection, "SET SESSION wsrep_sync_wait = 1")
                status.rows(connection, "SELECT 1")
        except errors.ConPaaSError:
            return False
        return True

    def end(self, patience: float) -> None:
        self._member.end(patience)

    def begin(self) -> None:
        if self.wanted():
            settings, server = self._member.settings(), self._member.server()
            server.configure(self._member.render(settings, server))
            server.receive()
            self._member.cover_logs()
            self._member.begin(server)
            self._member.accompany()

    def others_in_step(self) -> bool:
        settings = self._member.settings()
        port = self._member.number("HEALTH_PORT", health.PORT)
        return room.in_step([one.ip for one in settings.members if one.name != settings.name], port)

    def _set_weight(self, weight: int) -> None:
        """How much this member counts for the majority. One that counts for nothing takes none with it when it goes without a word."""
        with self._member.connection(_ANSWER_TIMEOUT) as connection:
            status.rows(connection, f"SET GLOBAL wsrep_provider_options = 'pc.weight={weight}'")
