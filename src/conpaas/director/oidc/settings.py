"""The sections `[oidc NAME]` of director.cfg, one identity provider each; and what is told to and learnt from one."""

from __future__ import annotations

import dataclasses
import ipaddress
import pathlib
import re
from collections.abc import Mapping
from urllib import parse

PREFIX = "oidc "
KEYS = {
    "issuer": "The provider's issuer: an https URL; `/.well-known/openid-configuration` below it is its description.",
    "client_id": "What the provider calls this Director.",
    "client_secret": "The secret that goes with it.",
    "label": "What people read on the button. Default: NAME.",
    "scopes": "What is asked for. Default: openid email profile.",
    "ca": "File of the authorities that the provider's certificate may be of. Default: those of this machine.",
}
REQUIRED = ("issuer", "client_id", "client_secret")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")


@dataclasses.dataclass(frozen=True)
class Provider:
    """One identity provider."""

    name: str
    issuer: str
    client_id: str
    client_secret: str = dataclasses.field(repr=False)
    label: str = ""
    scopes: str = "openid email profile"
    ca: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Person:
    """Whom a checked ID token tells of. `email_verified` is what the provider says of the address."""

    issuer: str
    subject: str
    email: str = ""
    email_verified: bool = False
    username: str = ""
    fname: str = ""
    lname: str = ""


@dataclasses.dataclass(frozen=True)
class Proof:
    """What a login must be answered with, besides the state."""

    redirect_uri: str
    nonce: str
    verifier: str


def read(source: str, sections: Mapping[str, Mapping[str, str]], base: pathlib.Path) -> tuple[tuple[Provider, ...], list[str]]:
    """All configured providers, and a sentence for everything that is wrong; paths start at `base`."""
    found, problems = [], []
    for section, values in sections.items():
        if not section.lower().startswith(PREFIX):
            continue
        wrong = _problems(section, values)
        problems += [f"{source}: section [{section}]: {text}" for text in wrong]
        if not wrong:
            found.append(_provider(_name(section), values, base))
    return tuple(found), problems


def _name(section: str) -> str:
    return section[len(PREFIX) :].strip()


def _provider(name: str, values: Mapping[str, str], base: pathlib.Path) -> Provider:
    return Provider(
        name=name,
        issuer=values["issuer"],
        client_id=values["client_id"],
        client_secret=values["client_secret"],
        label=values.get("label") or name,
        scopes=values.get("scopes") or "openid email profile",
        ca=base / values["ca"] if values.get("ca") else None,
    )


def _problems(section: str, values: Mapping[str, str]) -> list[str]:
    wrong = [f"'{key.upper()}' is not a key that the Director knows." for key in values if key not in KEYS]
    wrong += [f"{key.upper()} is missing." for key in REQUIRED if not values.get(key)]
    if not _NAME.match(_name(section)):
        wrong.append("the name of a provider has 1 to 64 letters, digits or . _ - characters.")
    if values.get("issuer") and not is_safe_url(values["issuer"]):
        wrong.append(f"ISSUER must be an https URL, not '{values['issuer']}'.")
    if values.get("scopes") and "openid" not in values["scopes"].split():
        wrong.append("SCOPES must name openid.")
    return wrong


def is_safe_url(url: str) -> bool:
    """Whether what is sent to a URL stays secret on the way: https, or http on this very machine."""
    try:
        parts = parse.urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.username or parts.fragment or not host:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_local(host))


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
