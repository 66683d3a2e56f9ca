"""The verbs for storage volumes; a service type adds them with `group.volume_verbs()`."""

from __future__ import annotations

from conpaas.client import handles, verbs

COLUMNS = ("aid", "sid", "vol_name", "vol_size", "agent_id", "cloud")


def register(group: verbs.VerbTable) -> None:
    """Add the verbs. Names of volumes are unique in an application, so creating and deleting take no service."""

    @group.verb(
        "create_volume",
        group.argument("vol_name"),
        group.argument("vol_size", kind="integer"),
        group.argument("agent_id"),
        target="application",
    )
    def create_volume(application: handles.Handle, vol_name: str, vol_size: int, agent_id: str) -> None:
        """Create a volume of VOL_SIZE MB and attach it to a node."""
        application.change(
            f"Creating volume '{vol_name}' and attaching it to node '{agent_id}'",
            lambda: application.post("create_volume", volumeName=vol_name, volumeSize=vol_size, agentId=agent_id),
        )

    @group.verb("delete_volume", group.argument("vol_name"), target="application", destructive="Delete this volume and its data?")
    def delete_volume(application: handles.Handle, vol_name: str) -> None:
        """Detach a volume and delete it with its data."""
        application.change(f"Detaching volume '{vol_name}' and deleting it", lambda: application.post("delete_volume", volumeName=vol_name))

    @group.verb("list_volumes")
    def list_volumes(service: handles.Handle) -> None:
        """List the volumes of a service."""
        rows = [
            {
                "aid": service.app_id,
                "sid": volume.sid,
                "vol_name": volume.name,
                "vol_size": volume.size,
                "agent_id": volume.agent or "(spare)",
                "cloud": volume.cloud,
            }
            for volume in sorted(service.manager.volumes(service.service_id), key=lambda v: (v.sid, v.name))
        ]
        service.table(COLUMNS, rows, "No existing storage volumes.")
