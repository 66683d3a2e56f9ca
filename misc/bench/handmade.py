"""nginx and php-fpm as somebody would configure them by hand for one site: what our own set-up is compared with.

Scripts are handed to php-fpm by Debian's own snippet, which hands over none that does not exist.

The servers run as ordinary processes under one directory and are ended in the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

NGINX = "/usr/sbin/nginx"
PHP_FPM = "/usr/sbin/php-fpm8.2"

_NGINX = """\
user www-data;
worker_processes {workers};
daemon off;
pid {directory}/nginx-{name}.pid;
error_log {directory}/nginx-{name}-error.log;
events {{ worker_connections 1024; }}
http {{
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 65;
    gzip on;
    access_log {directory}/nginx-{name}-access.log combined buffer=32k flush=1s;
    client_body_temp_path {directory}/{name}-body;
    proxy_temp_path {directory}/{name}-proxy;
    fastcgi_temp_path {directory}/{name}-fastcgi;
    uwsgi_temp_path {directory}/{name}-uwsgi;
    scgi_temp_path {directory}/{name}-scgi;
{servers}
}}
"""

_PHP = """\
        location ~ \\.php$ {{
            include /etc/nginx/snippets/fastcgi-php.conf;
            fastcgi_pass {listen};
        }}
"""

_PACKED = """\
    server {{
        listen {proxy}:8000;
        root {site};
        index index.php index.html;
        location / {{ try_files $uri $uri/ /index.php?$args; }}
{php}
    }}
"""

_APART = """\
    upstream static {{ server {web}:8080; keepalive 32; }}
    server {{
        listen {proxy}:8000;
        root {site};
        index index.php index.html;
        location / {{
            try_files /nothing-here @static;
        }}
        location @static {{
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_pass http://static;
        }}
{php}
    }}
"""

_STATIC = """\
    server {{
        listen {web}:8080;
        root {site};
    }}
"""

_FPM = """\
[global]
daemonize = no
error_log = {directory}/fpm-error.log
[www]
user = www-data
group = www-data
listen = {listen}
listen.backlog = 511
pm = {pm}
pm.max_children = {children}
pm.start_servers = {start}
pm.min_spare_servers = {low}
pm.max_spare_servers = {high}
access.log = {directory}/fpm-access.log
"""


@dataclasses.dataclass(frozen=True)
class Workers:
    """The same numbers of processes as the set-up it is compared with."""

    nginx: str
    pm: str
    children: int
    start: int
    low: int
    high: int


def _listens(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


@contextlib.contextmanager
def site(
    directory: pathlib.Path, files: pathlib.Path, addresses: tuple[str, str, str], workers: Workers, *, by_socket: bool = False
) -> Iterator[tuple[tuple[str, int], list[int]]]:
    """Serve the files; `addresses` are those of proxy, static server and php-fpm, all the same for a packed set-up.

    `by_socket`: php-fpm listens on a Unix socket, as Debian has it, instead of TCP. Yields where the proxy listens, and the processes.
    """
    proxy, web, fpm = addresses
    values = {"directory": directory, "site": files, "proxy": proxy, "web": web, "workers": workers.nginx}
    values["listen"] = f"unix:{directory}/fpm.sock" if by_socket else f"{fpm}:9000"
    values["php"] = _PHP.format(**values)
    packed = proxy == web
    configurations = {"proxy": (_PACKED if packed else _APART).format(**values)}
    if not packed:
        configurations["static"] = _STATIC.format(**values)
    shutil.copy("/etc/nginx/fastcgi.conf", directory)  # the snippet includes it from beside the configuration
    commands = []
    for name, servers in configurations.items():
        path = directory / f"nginx-{name}.conf"
        path.write_text(_NGINX.format(name=name, servers=servers, **values))
        commands.append([NGINX, "-c", str(path), "-p", str(directory)])
    pool = directory / "fpm.conf"
    owner = "\nlisten.owner = www-data" if by_socket else ""
    listen = values.pop("listen").removeprefix("unix:") + owner
    pool.write_text(_FPM.format(listen=listen, **values, **dataclasses.asdict(workers)))
    commands.append([PHP_FPM, "-F", "--fpm-config", str(pool)])
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    # Each in a session of its own, as a supervisor runs them: the kernel shares the processors among sessions.
    environment = {**os.environ, "LC_ALL": "C"}
    running = [subprocess.Popen(command, **quiet, env=environment, start_new_session=True) for command in commands]  # type: ignore[call-overload]
    try:
        deadline = time.monotonic() + 20
        wanted = [(proxy, 8000)] + ([] if by_socket else [(fpm, 9000)]) + ([] if packed else [(web, 8080)])
        while not all(map(_listens, wanted)):
            if time.monotonic() > deadline:
                raise SystemExit(f"the set-up made by hand does not start; see {directory}")
            time.sleep(0.02)
        yield (proxy, 8000), [process.pid for process in running]
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(20)
