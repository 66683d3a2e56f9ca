"""The web front-end beside the Director: a process of its own that is started, watched and ended here.

It has no rights that a browser's user does not have, so its end or its failure takes nothing else along. It ends with the Director, also
when that is killed.
"""

from __future__ import annotations

import logging
import os
import pathlib
import subprocess
import sys
import threading
import time
from typing import IO, Final

from conpaas.director import config

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
SETTLED: Final = 60.0
"""Seconds after which a front-end that ends is started again at once."""

_GRACE: Final = 8.0


def command(configuration: config.DirectorConfig, ca: pathlib.Path) -> list[str]:
    """The command line of the front-end's process."""
    given = {
        "--director-url": configuration.director_url,
        "--ca": ca,
        "--state": configuration.state_dir / "frontend",
        "--log-dir": configuration.log_dir,
        "--bind": configuration.frontend_bind,
        "--port": configuration.frontend_port,
        "--root-path": configuration.frontend_root_path,
        "--public-url": configuration.frontend_public_url,
        "--tls-cert": configuration.frontend_tls_cert or "",
        "--tls-key": configuration.frontend_tls_key or "",
        "--parent": os.getpid(),
    }
    words = [word for name, value in given.items() if str(value) for word in (name, str(value))]
    return [sys.executable, "-m", "conpaas.frontend", *words, *(["--debug"] if configuration.debug else [])]


class Keeper:
    """Keeps the front-end running from `start()` to `stop()`, if the configuration wants one."""

    def __init__(self, configuration: config.DirectorConfig, ca: pathlib.Path) -> None:
        self._configuration = configuration
        self._ca = ca
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        # The kernel ends the child when the thread that started it ends: this one lives until stop().
        self._thread = threading.Thread(target=self._keep, name="frontend", daemon=True)

    def start(self) -> None:
        """Begin, in the background: that the front-end cannot start is logged, and does not concern the Director."""
        if self._configuration.frontend_enabled:
            self._thread.start()

    def stop(self) -> None:
        """End the front-end. Harmless when repeated, or when it was never started."""
        self._ending.set()
        with self._lock:
            process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
        if self._thread.is_alive():
            self._thread.join(_GRACE)

    def _keep(self) -> None:
        pause = FIRST_PAUSE
        said = ""
        while not self._ending.is_set():
            begun = time.monotonic()
            last = self._run()
            if self._ending.is_set():
                return
            pause = FIRST_PAUSE if time.monotonic() - begun > SETTLED else pause
            if last != said:
                log.error("the web front-end ended: %s", last)
                said = last
            self._ending.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _run(self) -> str:
        """One life of the process; its last words."""
        try:
            with self._lock:
                if self._ending.is_set():
                    return ""
                self._process = process = subprocess.Popen(
                    command(self._configuration, self._ca),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="backslashreplace",
                )
        except OSError as error:
            return f"it could not be started: {error.strerror}"
        assert process.stdout is not None
        words = self._listen(process.stdout)
        code = process.wait()
        return words or f"exit status {code}"

    def _listen(self, output: IO[str]) -> str:
        """Log what it prints; what an error said is its last words."""
        wrong = ""
        for line in output:
            text = line.strip()
            if text.startswith("error: "):
                wrong = text.removeprefix("error: ")
            elif text.startswith("hint: "):
                wrong = f"{wrong} ({text.removeprefix('hint: ')})"
            elif text.startswith(("http://", "https://")):
                log.info("the web front-end listens on %s", text)
            elif text:
                log.warning("the web front-end says: %s", text)
        output.close()
        return wrong
