"""Secrets that are shown once and stored as their hash."""

from __future__ import annotations

import hashlib
import secrets

BYTES = 32


def new() -> str:
    """A fresh token that nobody can guess."""
    return secrets.token_urlsafe(BYTES)


def digest(token: str) -> str:
    """What is stored of a token: its SHA-256 in hexadecimal. It is long and random, so a plain hash tells nothing of it."""
    return hashlib.sha256(token.strip().encode("utf-8", "replace")).hexdigest()
