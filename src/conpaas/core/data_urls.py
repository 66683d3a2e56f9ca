"""Files as `data:` URLs: what a manifest holds when the content itself travels in it.

The form is `data:[type][;name=<file name>];base64,<content>` or, for text, `data:[type],<percent-encoded text>`.
"""

from __future__ import annotations

import base64
import binascii
from urllib import parse

from conpaas.core import errors

SCHEME = "data:"


def encode(name: str, content: bytes) -> str:
    """A file as a `data:` URL."""
    return f"{SCHEME}application/octet-stream;name={parse.quote(name, safe='')};base64,{base64.b64encode(content).decode('ascii')}"


def decode(url: str) -> tuple[str, bytes]:
    """The file's name (empty if the URL tells none) and content. Raises InvalidArgument."""
    head, comma, body = url[len(SCHEME) :].partition(",")
    if not url.startswith(SCHEME) or not comma:
        raise errors.InvalidArgument("A data URL has the form data:[type][;name=…][;base64],<content>.")
    attributes = [part.strip() for part in head.split(";")]
    name = next((parse.unquote(part[len("name=") :]) for part in attributes if part.startswith("name=")), "")
    raw = parse.unquote_to_bytes(body)
    if attributes[-1] != "base64":
        return name, raw
    try:
        return name, base64.b64decode(raw, validate=True)
    except (binascii.Error, ValueError) as error:
        raise errors.InvalidArgument(f"The content of a data URL is not base64: {error}.") from error
