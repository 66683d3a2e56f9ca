"""Messages to people by a real mail server and by a command."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support import smtp

from conpaas.core import errors
from conpaas.core.https import x509
from conpaas.director import config, models, notify

from . import conftest

HOST = "127.81.0.6"


def by_mail(configuration: config.DirectorConfig, box: smtp.Mailbox, **more: Any) -> config.DirectorConfig:
    return dataclasses.replace(
        configuration, notify="smtp", smtp_host=HOST, smtp_port=box.port, mail_from="conpaas@director.example", **more
    )


def test_a_new_account_is_confirmed_by_mail(configuration: config.DirectorConfig) -> None:
    with smtp.running(HOST) as box:
        more = {"confirm_email": True, "frontend_url": "https://front.example"}
        running = conftest.Running(by_mail(configuration, box, **more))
        try:
            fields = {"username": "zoë", "email": "zoe@example.org", "password": conftest.PASSWORD, "fname": "Zoë"}
            assert json.loads(running.post("/new_user", fields).body)["unconfirmed"] is True
            mail = box.next()
            assert (mail["to"], mail["from"]) == (["zoe@example.org"], "conpaas@director.example")
            assert mail["text"].startswith("Hello Zoë,")
            token = mail["text"].partition("https://front.example/confirm/")[2].split()[0]
            assert json.loads(running.post("/confirm_email", {"token": token}).body) == {"username": "zoë"}
            assert json.loads(running.post("/login", {"username": "zoë", "password": conftest.PASSWORD}).body)["username"] == "zoë"
        finally:
            running.server.stop()


def test_a_mail_server_with_tls_and_a_password(configuration: config.DirectorConfig, tmp_path: pathlib.Path) -> None:
    ca_key, ca = x509.new_ca()
    key = x509.new_key()
    certificate = x509.issue(ca_key, ca, key.public_key(), x509.Subject(role="x", cn=HOST), san=[HOST])
    for name, text in (("ca.pem", x509.certificate_pem(ca)), ("cert.pem", certificate), ("key.pem", x509.key_pem(key))):
        (tmp_path / name).write_text(text)
    with smtp.running(HOST, tmp_path / "cert.pem", tmp_path / "key.pem") as box:
        right = {"smtp_security": "starttls", "smtp_ca": tmp_path / "ca.pem", "smtp_user": "conpaas", "smtp_password": "secret"}
        notify.make(by_mail(configuration, box, **right))("a@example.org", "Subject", "Text")
        assert box.next()["text"].strip() == "Text"
        for wrong in ({"smtp_security": "none"}, {"smtp_password": "guess"}, {"smtp_ca": None}):
            with pytest.raises(errors.OperationFailed, match=f"The mail server {HOST}"):
                notify.make(by_mail(configuration, box, **{**right, **wrong}))("a@example.org", "Subject", "Text")


def test_a_message_that_is_refused_is_kept_for_later(configuration: config.DirectorConfig) -> None:
    with smtp.running(HOST) as box:
        running = conftest.Running(by_mail(configuration, box, confirm_email=True))
        try:
            for name, email in (("refused", "refused@example.org"), ("zoe", "zoe@example.org")):
                running.post("/new_user", {"username": name, "email": email, "password": conftest.PASSWORD})
            assert box.next()["to"] == ["zoe@example.org"]
            with running.director.database.reader() as session:
                attempts = session.scalars(sa.select(models.Notice.attempts).join(models.User).where(models.User.username == "refused"))
                assert attempts.one() == 1
        finally:
            running.server.stop()


def test_a_mail_server_that_is_not_there(configuration: config.DirectorConfig) -> None:
    gone = dataclasses.replace(configuration, notify="smtp", smtp_host=HOST, smtp_port=conftest.free_port(HOST), mail_from="a@b")
    with pytest.raises(errors.OperationFailed, match="did not take the message"):
        notify.make(gone)("a@example.org", "Subject", "Text")


def test_a_command(configuration: config.DirectorConfig, tmp_path: pathlib.Path) -> None:
    script, result = tmp_path / "send it", tmp_path / "result"
    refuse = '[ "$CONPAAS_TO" != x@y ] || { echo no such person >&2; exit 3; }'
    script.write_text(f'#!/bin/sh\n{refuse}\n{{ echo "$CONPAAS_TO|$CONPAAS_SUBJECT|$1"; cat; }} > "$2"\n')
    script.chmod(0o755)
    command = dataclasses.replace(configuration, notify="command", notify_command=f"'{script}' first '{result}'")
    notify.make(command)("-oX@example.org", "It's $(ending)", "Hello,\n")
    assert result.read_text() == "-oX@example.org|It's $(ending)|first\nHello,\n"
    with pytest.raises(errors.OperationFailed, match="ended with status 3: no such person"):
        notify.make(command)("x@y", "Subject", "Text")
    missing = dataclasses.replace(configuration, notify="command", notify_command="/nonexistent/program")
    with pytest.raises(errors.OperationFailed, match="could not be run"):
        notify.make(missing)("x@y", "Subject", "Text")
