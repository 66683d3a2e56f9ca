"""The dummy cloud: the embedded default, whose VMs are process trees on this machine.

A VM has its own loopback address, its own directory as disk, and its own process tree, booted by the same user-data as on any cloud. It
lives on when the Director restarts, and is killed as a whole. See `cloud` (the driver), `store` (what is remembered), `vm` (processes;
`init.sh` is the first one, `session` the guard where namespaces are refused), `volumes`, `network` and `faults` (failures on request).

| key              | default                         | meaning                                                                       |
|------------------|---------------------------------|-------------------------------------------------------------------------------|
| STATE_DIR        | /var/lib/conpaas/<cloud> (root), $XDG_STATE_HOME/conpaas/<cloud> | where VMs, volumes and faults.json are       |
| NETWORK          | 127.100.0.0/16                  | pool of addresses; .0 and .255 are left out                                   |
| AGENT_PORT, MANAGER_PORT | 5555, 443               | an address where somebody listens on these is not given out                   |
| ISOLATION        | auto                            | pidns, session, or auto: pidns where namespaces are allowed                   |
| VOLUMES          | auto                            | loop, directory, or auto: loop where loop devices are allowed                 |
| MAX_VMS, MAX_VOLUMES, MAX_VOLUME_MB | 0            | quotas: VMs, volumes, size of one volume (MB); 0 means no limit               |
| DISK_MB, MEMORY_MB | 0                             | room (MB) that must be free on the host for each new VM; 0 means not checked  |
| PARALLEL         | 8                               | VMs started or destroyed at once                                              |
| HALT_TIMEOUT_S   | 10                              | seconds that services get to end when VMs are switched off                    |
| BOOT_DELAY_S …   |                                 | see `faults`                                                                  |

Needs bash, runit and util-linux on the host.
"""

from __future__ import annotations

from conpaas.core.clouds.dummy.cloud import DummyCloud

__all__ = ["DummyCloud"]
