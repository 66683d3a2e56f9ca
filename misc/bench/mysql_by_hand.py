"""What a person would set up by hand, to compare the mysql service with: one MariaDB server, or a Galera cluster behind HAProxy."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator

SERVER = """[mariadbd]
datadir = {directory}/data
socket = {directory}/s
pid_file = {directory}/pid
log_error = {directory}/log
bind_address = {address}
port = 3306
skip_name_resolve = ON
performance_schema = OFF
character_set_server = utf8mb4
innodb_flush_log_at_trx_commit = 1
innodb_buffer_pool_size = 128M
log_bin = mysql-bin
sync_binlog = 1
binlog_format = ROW
"""
MEMBER = """innodb_autoinc_lock_mode = 2
log_slave_updates = ON
wsrep_on = ON
wsrep_provider = /usr/lib/galera/libgalera_smm.so
wsrep_cluster_name = by-hand
wsrep_cluster_address = gcomm://{members}
wsrep_node_address = {address}
wsrep_sst_method = rsync
wsrep_slave_threads = 2
wsrep_provider_options = "base_host={address};gmcast.listen_addr=tcp://{address}:4567;ist.recv_addr={address}:4568"
"""
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


@contextlib.contextmanager
def server(directory: pathlib.Path, address: str, password: str, extra: str = "", *options: str) -> Iterator[str]:
    """A server with the durability and the character set of the service's, without a cluster; yields its address."""
    directory.mkdir()
    user = "mysql" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() == 0:
        shutil.chown(directory, user, user)
    configuration = directory / "my.cnf"
    configuration.write_text((SERVER + extra).format(directory=directory, address=address))
    given = [f"--defaults-file={configuration}", f"--user={user}"]
    subprocess.run(["mariadb-install-db", *given, "--skip-test-db"], check=True, capture_output=True)
    running = subprocess.Popen(["/usr/sbin/mariadbd", *given, *options])
    try:
        grant = f"CREATE USER IF NOT EXISTS mysqldb IDENTIFIED BY '{password}'; GRANT ALL ON *.* TO mysqldb"
        deadline = time.monotonic() + START_TIMEOUT
        while subprocess.run(["mariadb", f"--socket={directory}/s", "-e", grant], capture_output=True, check=False).returncode != 0:
            if time.monotonic() > deadline or running.poll() is not None:
                raise SystemExit(f"the server by hand does not start: {(directory / 'log').read_text()[-500:]}")
            time.sleep(0.1)
        yield address
    finally:
        running.terminate()
        running.wait()


@contextlib.contextmanager
def cluster(directory: pathlib.Path, network: str, password: str) -> Iterator[str]:
    """Three members and a load balancer that gives all sessions to the first of them; yields its address."""
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    addresses = [f"{network}.{number}" for number in (11, 12, 13)]
    extra = MEMBER.replace("{members}", ",".join(addresses))
    with contextlib.ExitStack() as stack:
        for number, address in enumerate(addresses):
            first = ["--wsrep-new-cluster"] if number == 0 else []
            stack.enter_context(server(directory / str(number), address, password, extra, *first))
        balancer = directory / "haproxy.cfg"
        lines = [f"    server m{number} {address}:3306 check{' backup' if number else ''}" for number, address in enumerate(addresses)]
        balancer.write_text(BALANCER.format(address=f"{network}.10") + "\n".join(lines) + "\n")
        running = subprocess.Popen(["/usr/sbin/haproxy", "-f", str(balancer)])
        stack.callback(running.wait)
        stack.callback(running.terminate)
        yield f"{network}.10"
