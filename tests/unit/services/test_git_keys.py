"""Which public keys are taken, and what becomes of the file they are kept in."""

from __future__ import annotations

import base64
import pathlib
import shutil
import subprocess

import pytest
from hypothesis import given, strategies

from conpaas.core import errors, git_keys

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


def generate(directory: pathlib.Path, kind: str, *options: str) -> str:
    path = directory / f"{kind}{''.join(options)}"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, *options, "-N", "", "-C", "me@here", "-f", path], check=True)
    return path.with_suffix(".pub").read_text().strip()


@pytest.fixture(scope="module")
def ed25519(tmp_path_factory: pytest.TempPathFactory) -> str:
    return generate(tmp_path_factory.mktemp("keys"), "ed25519")


def blob(*fields: bytes) -> str:
    return base64.b64encode(b"".join(len(field).to_bytes(4) + field for field in fields)).decode()


@pytest.mark.parametrize(
    ("kind", "options"), [("ed25519", ()), ("rsa", ("-b", "2048")), ("ecdsa", ("-b", "256")), ("ecdsa", ("-b", "521"))]
)
def test_keys_made_by_ssh_keygen_are_taken_as_they_are(tmp_path: pathlib.Path, kind: str, options: tuple[str, ...]) -> None:
    line = generate(tmp_path, kind, *options)
    key = git_keys.PublicKey.parse(line)
    assert str(key) == line
    shown = subprocess.run(["ssh-keygen", "-l", "-f", "-"], input=line, capture_output=True, text=True, check=True).stdout
    assert key.fingerprint in shown


def test_a_weak_rsa_key_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="at least 2048 bits"):
        git_keys.PublicKey.parse(generate(tmp_path, "rsa", "-b", "1024"))


HOSTILE = [
    'command="sh" {key}',
    'from="*",environment="X=1" {key}',
    "restrict {key}",
    "ssh-dss AAAA",
    "ssh-ed25519",
    "ssh-ed25519 not*base64",
    "ssh-ed25519 AAAA",
    "ssh-rsa " + blob(b"ssh-ed25519", b"x" * 32),
    "ssh-ed25519 " + blob(b"ssh-ed25519", b"x" * 31),
    "ssh-ed25519 " + blob(b"ssh-ed25519", b"x" * 32, b"more"),
    "ecdsa-sha2-nistp256 " + blob(b"ecdsa-sha2-nistp256", b"nistp384", b"x" * 65),
    "{key} \x1b[31m",
    "{key} " + "x" * 300,
    "ssh-ed25519-cert-v01@openssh.com AAAA",
]


@pytest.mark.parametrize("line", HOSTILE)
def test_hostile_lines_are_refused(ed25519: str, line: str) -> None:  # D6
    with pytest.raises(errors.InvalidArgument):
        git_keys.PublicKey.parse(line.format(key=ed25519))


@given(strategies.text(max_size=200))
def test_any_text_is_either_a_key_or_an_error_for_a_person(text: str) -> None:
    try:
        git_keys.read_keys(text.encode("utf-8", "surrogatepass"))
    except errors.InvalidArgument:
        return


def test_a_file_is_taken_as_a_whole_or_not_at_all(ed25519: str) -> None:
    content = f"# mine\n\n{ed25519}\n".encode()
    assert [str(key) for key in git_keys.read_keys(content)] == [ed25519]
    with pytest.raises(errors.InvalidArgument, match=r"^Line 4 of the file of keys: A key must begin with"):
        git_keys.read_keys(content + b"nonsense\n")


def test_keys_are_added_once_listed_and_removed(tmp_path: pathlib.Path, ed25519: str) -> None:
    kept = git_keys.AuthorizedKeys(tmp_path / "home" / "authorized_keys")
    first = git_keys.PublicKey.parse(ed25519)
    second = git_keys.PublicKey.parse("ssh-ed25519 " + blob(b"ssh-ed25519", b"y" * 32))
    renamed = git_keys.PublicKey.parse(f"{first.type} {first.material} another name")
    assert kept.list() == []
    assert kept.add([first, renamed, second]) == 2
    assert kept.add([second]) == 0
    assert kept.list() == [first, second]
    assert all(line.startswith("restrict ssh-ed25519 ") for line in kept.path.read_text().splitlines())
    assert kept.remove(first.fingerprint) == 1
    assert kept.remove(str(second)) == 0
    with pytest.raises(errors.NotFound):
        kept.remove(first.fingerprint)
