"""`requests` without its guesser of text encodings, which takes 3 MB of every daemon that calls others and serves nobody: bodies are bytes.

`requests` works without it, with a warning that means nothing to our users.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator

__all__ = ["requests"]

_GUESSERS = ("chardet", "charset_normalizer")


@contextlib.contextmanager
def _without_guessers() -> Iterator[None]:
    """While this lasts, a guesser that nobody has imported yet cannot be imported."""
    hidden = [name for name in _GUESSERS if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Unable to find acceptable character detection dependency")
            yield
    finally:
        for name in hidden:
            del sys.modules[name]


with _without_guessers():
    import requests.adapters
