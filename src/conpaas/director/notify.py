"""Ways to bring a message to a person: into the log, by e-mail, or with a command of the operator's. None blocks longer than TIMEOUT."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
from collections.abc import Callable

from conpaas.core import errors
from conpaas.director import config

log = logging.getLogger(__name__)

TIMEOUT = 30.0
WAYS = ("log", "smtp", "command")
Notifier = Callable[[str, str, str], None]
"""Called with address, subject and text; raises ConPaaSError when the message was not taken."""


def make(configuration: config.DirectorConfig) -> Notifier:
    """The notifier that the configuration names."""
    ways: dict[str, Notifier] = {
        "log": _to_log,
        "smtp": lambda to, subject, text: _by_smtp(configuration, to, subject, text),
        "command": lambda to, subject, text: _by_command(configuration.notify_command, to, subject, text),
    }
    return ways[configuration.notify]


def _to_log(to: str, subject: str, text: str) -> None:
    log.info("message to %s: %s\n%s", to, subject, text)


def _by_smtp(configuration: config.DirectorConfig, to: str, subject: str, text: str) -> None:
    import smtplib
    import ssl
    from email import message, utils

    mail = message.EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = configuration.mail_from, to, subject
    mail["Date"], mail["Message-ID"] = utils.formatdate(), utils.make_msgid(domain=configuration.host or None)
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text)
    where = f"{configuration.smtp_host}:{configuration.smtp_port}"
    try:
        context = ssl.create_default_context(cafile=str(configuration.smtp_ca) if configuration.smtp_ca else None)
        if configuration.smtp_security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(configuration.smtp_host, configuration.smtp_port, timeout=TIMEOUT, context=context)
        else:
            server = smtplib.SMTP(configuration.smtp_host, configuration.smtp_port, timeout=TIMEOUT)
        with server:
            if configuration.smtp_security == "starttls":
                server.starttls(context=context)
            if configuration.smtp_user:
                server.login(configuration.smtp_user, configuration.smtp_password)
            server.send_message(mail)
    except (OSError, smtplib.SMTPException) as error:
        raise errors.OperationFailed(f"The mail server {where} did not take the message: {error}.") from error


def _by_command(command: str, to: str, subject: str, text: str) -> None:
    """The command gets address and subject in its environment, where they cannot be taken for options, and the text as its input."""
    argv = shlex.split(command)
    environment = {**os.environ, "CONPAAS_TO": to, "CONPAAS_SUBJECT": subject}
    try:
        subprocess.run(
            argv,
            input=text,
            text=True,
            check=True,
            timeout=TIMEOUT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip()[-500:]
        raise errors.OperationFailed(f"The command '{argv[0]}' ended with status {error.returncode}: {said}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise errors.OperationFailed(f"The command '{argv[0]}' could not be run: {error}") from error
