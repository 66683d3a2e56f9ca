"""The public keys that may push: checked bit by bit, kept one per line in an `authorized_keys` file."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import pathlib
import threading
from collections.abc import Iterable

from conpaas.core import errors, file

MAX_FILE = 256_000
MAX_KEYS = 500
MIN_RSA_BITS = 2048
_MAX_COMMENT = 200
_RESTRICT = "restrict"
_CURVES = {"ecdsa-sha2-nistp256": (b"nistp256", 65), "ecdsa-sha2-nistp384": (b"nistp384", 97), "ecdsa-sha2-nistp521": (b"nistp521", 133)}
TYPES = ("ssh-ed25519", "ssh-rsa", *_CURVES)


@dataclasses.dataclass(frozen=True)
class PublicKey:
    """One public key. Two keys are the same when type and material are, whatever the comment."""

    type: str
    material: str
    comment: str = dataclasses.field(default="", compare=False)

    @classmethod
    def parse(cls, line: str) -> PublicKey:
        """Read `<type> <base64> [comment]`. Raises InvalidArgument: no options, no unknown types, no malformed or weak material."""
        words = line.split(maxsplit=2)
        if not words or words[0] not in TYPES:
            raise errors.InvalidArgument(f"A key must begin with one of {', '.join(TYPES)}, not {line[:40]!r}")
        if len(words) == 1:
            raise errors.InvalidArgument(f"The key of type {words[0]} has no content")
        comment = words[2].strip() if len(words) > 2 else ""
        if len(comment) > _MAX_COMMENT or not comment.isprintable():
            raise errors.InvalidArgument(f"The comment of the key is not a line of at most {_MAX_COMMENT} printable characters")
        try:
            blob = base64.b64decode(words[1], validate=True)
        except (binascii.Error, ValueError) as error:
            raise errors.InvalidArgument(f"The content of the key of type {words[0]} is not base64") from error
        _check_blob(words[0], blob)
        return cls(words[0], base64.b64encode(blob).decode(), comment)

    @property
    def fingerprint(self) -> str:
        """The fingerprint as `ssh-keygen -l` shows it."""
        digest = hashlib.sha256(base64.b64decode(self.material)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def __str__(self) -> str:
        return " ".join(part for part in (self.type, self.material, self.comment) if part)


class AuthorizedKeys:
    """The keys that may log in. The file holds nothing but keys, each with the option `restrict`; it is replaced as a whole."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def list(self) -> list[PublicKey]:
        """All keys, oldest first."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [PublicKey.parse(line.removeprefix(_RESTRICT)) for line in lines if line.strip()]

    def add(self, keys: Iterable[PublicKey]) -> int:
        """Add keys that are not there yet; returns how many were new."""
        with self._lock:
            known = self.list()
            new = [key for key in dict.fromkeys(keys) if key not in known]
            if len(known) + len(new) > MAX_KEYS:
                raise errors.TooLarge(f"There can be at most {MAX_KEYS} keys", hint="remove keys that are no longer used")
            if new:
                self._write([*known, *new])
            return len(new)

    def remove(self, name: str) -> int:
        """Remove the key with this fingerprint, or this whole line; returns how many are left. Raises NotFound."""
        with self._lock:
            known = self.list()
            kept = [key for key in known if name.strip() not in (key.fingerprint, f"{key.type} {key.material}", str(key))]
            if len(kept) == len(known):
                raise errors.NotFound(f"There is no authorized key {name[:80]!r}", hint="list the keys to see their fingerprints")
            self._write(kept)
            return len(kept)

    def _write(self, keys: Iterable[PublicKey]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file.write_atomically(self.path, "".join(f"{_RESTRICT} {key}\n" for key in keys), mode=0o644)


def read_keys(content: bytes) -> list[PublicKey]:
    """The keys of an uploaded file, one a line; blank lines and `#` lines are skipped. Raises InvalidArgument naming the line."""
    if len(content) > MAX_FILE:
        raise errors.TooLarge(f"A file of keys can have at most {MAX_FILE} bytes")
    try:
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise errors.InvalidArgument("The file of keys is not text") from error
    keys = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            keys.append(PublicKey.parse(line.strip()))
        except errors.InvalidArgument as error:
            raise errors.InvalidArgument(f"Line {number} of the file of keys: {error}") from error
    return keys


def _check_blob(key_type: str, blob: bytes) -> None:
    fields = _fields(blob)
    if not fields or fields[0] != key_type.encode():
        raise errors.InvalidArgument(f"The content of the key is not of the type {key_type}")
    if key_type == "ssh-ed25519":
        right = len(fields) == 2 and len(fields[1]) == 32
    elif key_type == "ssh-rsa":
        right = len(fields) == 3
        if right and int.from_bytes(fields[2]).bit_length() < MIN_RSA_BITS:
            raise errors.InvalidArgument(f"An RSA key must have at least {MIN_RSA_BITS} bits")
    else:
        curve, length = _CURVES[key_type]
        right = len(fields) == 3 and fields[1] == curve and len(fields[2]) == length
    if not right:
        raise errors.InvalidArgument(f"The content of the key is not a key of the type {key_type}")


def _fields(blob: bytes) -> list[bytes]:
    """The length-prefixed fields of a key; empty if they do not fill the blob exactly."""
    fields, position = [], 0
    while position < len(blob):
        end = position + 4 + int.from_bytes(blob[position : position + 4])
        if end > len(blob):
            return []
        fields.append(blob[position + 4 : end])
        position = end
    return fields
