"""What a careful person would set up by hand, to compare the mysql service with: one MariaDB server, or a Galera cluster behind HAProxy.

Durability, character set, binary log, encryption (offered to clients, used among members) and the kind of disk are those of the service,
and so is the user, who has no rights on the server as a whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence

from conpaas.core.clouds.dummy import volumes

SERVER: Mapping[str, str] = {
    "port": "3306",
    "skip_name_resolve": "ON",
    "performance_schema": "OFF",
    "open_files_limit": "20000",
    "character_set_server": "utf8mb4",
    "innodb_flush_log_at_trx_commit": "1",
    "innodb_buffer_pool_size": "128M",
    "log_bin": "mysql-bin",
    "sync_binlog": "1",
    "binlog_format": "ROW",
}
GALERA: Mapping[str, str] = {
    "innodb_autoinc_lock_mode": "2",
    "log_slave_updates": "ON",
    "wsrep_on": "ON",
    "wsrep_provider": "/usr/lib/galera/libgalera_smm.so",
    "wsrep_cluster_name": "by-hand",
    "wsrep_sst_method": "rsync",
    "wsrep_slave_threads": "2",
}
BALANCER = """global
    maxconn 1000
defaults
    mode tcp
    timeout connect 1s
    timeout client 9h
    timeout server 9h
listen mysql
    bind {address}:3306
"""
START_TIMEOUT = 60.0
"""Seconds; the second and third member get all data first."""
_DISK_MB = 1024


@dataclasses.dataclass(frozen=True)
class Place:
    """Where clients connect, and the processes that work for them: of the server that answers, and `others`, of load balancers and of
    members that only follow."""

    host: str
    port: int
    server: tuple[int, ...]
    others: tuple[int, ...] = ()

    @property
    def processes(self) -> tuple[int, ...]:
        return self.server + self.others


@contextlib.contextmanager
def disk(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """A directory for data, on a disk of the kind that members have on this machine."""
    directory.mkdir()
    if volumes.best_kind() != volumes.LOOP:
        yield directory
        return
    image = directory.with_suffix(".img")
    with image.open("wb") as stream:
        stream.truncate(_DISK_MB * 1024 * 1024)
    loop = _run("losetup", "--find", "--show", str(image)).strip()
    try:
        _run("mkfs.ext4", "-q", "-m0", loop)
        _run("mount", loop, str(directory))
        try:
            yield directory
        finally:
            _run("umount", str(directory))
    finally:
        _run("losetup", "--detach", loop)
        image.unlink()


@contextlib.contextmanager
def server(
    directory: pathlib.Path, address: str, password: str, options: Mapping[str, str | None], *arguments: str, on_disk: bool = True
) -> Iterator[Place]:
    """A server with these options besides those that all have; None takes one away."""
    directory.mkdir()
    user = "mysql" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(disk(directory / "disk")) if on_disk else directory
        if os.geteuid() == 0:
            for path in (directory, store):
                shutil.chown(path, user, user)
        own = {
            **{"datadir": f"{store}/data", "socket": f"{directory}/s", "pid_file": f"{directory}/pid"},
            **{"log_error": f"{directory}/log", "bind_address": address},
        }
        if "ssl_ca" not in options:
            own |= _certify(directory)
        configuration = directory / "my.cnf"
        lines = [f"{name} = {value}" for name, value in {**own, **SERVER, **options}.items() if value is not None]
        configuration.write_text("\n".join(["[mariadbd]", *lines]) + "\n")
        given = [f"--defaults-file={configuration}", f"--user={user}"]
        _run("mariadb-install-db", *given, "--skip-test-db")
        running = stack.enter_context(_running("/usr/sbin/mariadbd", *given, *arguments))
        grant = f"CREATE USER IF NOT EXISTS mysqldb IDENTIFIED BY '{password}'; GRANT ALL ON sbtest.* TO mysqldb"
        deadline = time.monotonic() + START_TIMEOUT
        while subprocess.run(["mariadb", f"--socket={directory}/s", "-e", grant], capture_output=True, check=False).returncode != 0:
            if time.monotonic() > deadline or running.poll() is not None:
                raise SystemExit(f"the server by hand does not start: {(directory / 'log').read_text()[-500:]}")
            time.sleep(0.1)
        yield Place(address, 3306, (running.pid,))


@contextlib.contextmanager
def cluster(
    directory: pathlib.Path,
    addresses: Sequence[str],
    password: str,
    *,
    tls: bool = True,
    provider: str = "",
    options: Mapping[str, str | None] | None = None,
) -> Iterator[list[Place]]:
    """A Galera cluster; yields its members. `provider` are more options of the provider, each after a ';'."""
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    certified = _certify(directory)
    secured = "".join(f";socket.{name}={path}" for name, path in certified.items()) + ";socket.ssl=yes" if tls else ""
    with contextlib.ExitStack() as stack:
        places = []
        for number, address in enumerate(addresses):
            where = f"base_host={address};gmcast.listen_addr={'ssl' if tls else 'tcp'}://{address}:4567;ist.recv_addr={address}:4568"
            own = {
                "wsrep_cluster_address": f"gcomm://{','.join(addresses)}",
                "wsrep_node_address": address,
                "wsrep_sst_receive_address": address,
                "wsrep_provider_options": f'"{where}{secured}{provider}"',
            }
            first = ["--wsrep-new-cluster"] if number == 0 else []
            made = server(directory / str(number), address, password, {**GALERA, **own, **certified, **(options or {})}, *first)
            places.append(stack.enter_context(made))
        yield places


@contextlib.contextmanager
def balancer(directory: pathlib.Path, address: str, places: Sequence[Place]) -> Iterator[Place]:
    """A load balancer that gives all sessions to the first of these servers."""
    configuration = directory / "haproxy.cfg"
    lines = [f"    server m{number} {one.host}:{one.port} check{' backup' if number else ''}" for number, one in enumerate(places)]
    configuration.write_text(BALANCER.format(address=address) + "\n".join(lines) + "\n")
    with _running("/usr/sbin/haproxy", "-f", str(configuration)) as running:
        first, *rest = places
        yield Place(address, 3306, first.server, (running.pid, *(pid for one in rest for pid in one.processes)))


@contextlib.contextmanager
def _running(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon in a session of its own, as a supervisor starts it: the kernel shares out cores by sessions."""
    process = subprocess.Popen(words, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _certify(directory: pathlib.Path) -> dict[str, str]:
    """A CA, and a certificate for all members: as options of a server."""
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    ca, ca_key, certificate, key = (directory / name for name in ("ca.pem", "ca-key.pem", "certificate.pem", "key.pem"))
    _run(*new, "-subj", "/CN=by hand", "-keyout", str(ca_key), "-out", str(ca))
    words = ["-subj", "/CN=member", "-CA", str(ca), "-CAkey", str(ca_key), "-addext", "basicConstraints=critical,CA:FALSE"]
    _run(*new, *words, "-keyout", str(key), "-out", str(certificate))
    if os.geteuid() == 0:
        shutil.chown(key, "mysql")
    return {"ssl_ca": str(ca), "ssl_cert": str(certificate), "ssl_key": str(key)}


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} fails: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
