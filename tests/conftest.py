"""What holds for every test."""

from __future__ import annotations

import signal

# Whoever starts the tests in the background has them ignore SIGINT, and every process inherits that, also those whose Ctrl-C is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)
