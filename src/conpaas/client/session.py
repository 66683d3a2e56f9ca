"""One run of a command: its settings, its output, and its calls, opened when first needed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn, TypeVar

from conpaas.client import api, certificates, failures, output, replies, resolve, settings, waiting
from conpaas.core import errors

T = TypeVar("T")
StateProbe = Callable[[Any], waiting.Seen]
EXPIRY_WARNING_DAYS = 30


class Session:
    """What a verb works with. Nothing is read from the network or from certificate files before it is asked for."""

    def __init__(self, config: settings.Settings, out: output.Output, *, clock: waiting.Clock | None = None) -> None:
        self.settings = config
        self.out = out
        self.clock = clock or waiting.Clock()
        self.resume_hint: str | None = None
        self._identity: api.Identity | None = None
        self._director: api.Director | None = None
        self._managers: dict[int, api.Manager] = {}

    def close(self) -> None:
        """Close what was opened."""
        for manager in self._managers.values():
            manager.close()
        self._managers.clear()
        if self._director is not None:
            self._director.close()

    # -- peers

    @property
    def identity(self) -> api.Identity:
        """The user's certificate and the CA trusted."""
        if self._identity is None:
            self._identity = api.Identity.open(self.settings.directory)
            if self._identity.credentials is not None:
                self._warn_of_expiry()
        return self._identity

    def _warn_of_expiry(self) -> None:
        left = certificates.Store(self.settings.directory).days_left()
        if left is not None and left < EXPIRY_WARNING_DAYS:
            self.out.warning(f"Your certificate ends in {max(left, 0)} days; get a new one with 'cps-user get_certificate'.")

    @property
    def director(self) -> api.Director:
        """The Director of the settings."""
        if self._director is None:
            self._director = api.Director(self.settings.url, self.identity)
        return self._director

    def manager(self, application: replies.Application) -> api.Manager:
        """The manager of an application, opened once."""
        if application.aid not in self._managers:
            self._managers[application.aid] = self.director.manager(application)
        return self._managers[application.aid]

    # -- names

    def application(self, word: str) -> replies.Application:
        """The application that `word` (id or name) means."""
        return resolve.application(word, self.director.applications())

    def service(self, application: replies.Application, word: str, service_type: str | None = None) -> replies.Service:
        """The service of `application` that `word` (id or name) means."""
        return resolve.service(word, application.aid, self.director.services(), service_type)

    def cloud(self, word: str) -> str:
        """Check a cloud's name with the Director."""
        return resolve.cloud(word, self.director.clouds())

    # -- people

    @property
    def can_ask(self) -> bool:
        """True if there is a person to ask: standard input and error are terminals."""
        return sys.stdin is not None and sys.stdin.isatty() and self.out.stderr.isatty()

    def confirm(self, question: str) -> None:
        """Ask on a terminal before something destructive; a no ends the command. Scripts and --yes are never asked."""
        if self.settings.yes or not self.can_ask:
            return
        import click

        if not click.confirm(question, err=True):
            self.out.note("Nothing was done.")
            raise failures.Finished(failures.ExitCode.FAILURE)

    def will_wait(self, default: bool = True) -> bool:
        """Whether to wait for what a verb began: --wait or --no-wait, else what the verb usually does."""
        return default if self.settings.wait is None else self.settings.wait

    # -- waiting

    def poll(self, probe: Callable[[], T | None], what: str) -> T:
        """Call `probe` until it answers something, bounded by --timeout, with progress on a terminal."""
        with waiting.progress(self.out, f"Waiting for {what}...") as report:

            def reporting() -> T | None:
                report("")
                return probe()

            return waiting.poll(reporting, what, timeout=self.settings.timeout, clock=self.clock)

    def change(
        self,
        sentence: str,
        request: Callable[[], Any],
        *,
        until: Collection[str],
        state: StateProbe,
        manager: api.Manager | None = None,
        about: Mapping[str, Any] | None = None,
        advice: str | None = None,
        done: str | None = None,
    ) -> None:
        """Send a request, wait for its outcome and print `<sentence>...  done.`, or `FAILED!` and exit code 1.

        `state` gets the reply of the request and tells what is seen now; if the reply names an operation of
        `manager`, that is followed instead. `about` goes into JSON output; `advice` says where to look after a failure.
        `done` is printed after success in place of the sentence.
        """
        reply = request()
        described = dict(about or {})
        if not self.will_wait():
            self.out.show(f"{sentence}...", {**described, "result": "requested"})
            return
        live = self.out.form == "table" and not self.out.interactive and done is None
        if live:
            self.out.text(f"{sentence}... ")
        try:
            outcome = self._outcome(sentence, reply, until, state, manager)
        except BaseException:
            if live:
                self.out.text("\n")
            raise
        self._conclude(sentence, outcome, described, live=live, advice=advice, done=done)

    def _outcome(
        self,
        sentence: str,
        reply: Any,
        until: Collection[str],
        state: StateProbe,
        manager: api.Manager | None,
    ) -> waiting.Outcome:
        operation_id = waiting.operation_id(reply) if manager else None
        watch = waiting.StateWatch(until)
        with waiting.progress(self.out, f"{sentence}...") as report:

            def probe() -> waiting.Outcome | None:
                if manager is not None and operation_id is not None:
                    operation = manager.operation(operation_id)
                    report(waiting.describe(operation))
                    return waiting.operation_outcome(operation)
                now = state(reply)
                report(f"{now.state}: {now.step}" if now.step else now.state)
                return watch.judge(now.state, now.reason)

            return waiting.poll(probe, f"'{sentence}'", timeout=self.settings.timeout, clock=self.clock)

    def _conclude(
        self, sentence: str, outcome: waiting.Outcome, about: dict[str, Any], *, live: bool, advice: str | None, done: str | None
    ) -> None:
        verdict = "done." if outcome.ok else "FAILED!"
        text = f" {verdict}" if live else f"{sentence}...  {verdict}"
        if done is not None and outcome.ok:
            text = done
        described = {**about, "result": "done" if outcome.ok else "failed", "state": outcome.state}
        if outcome.reason:
            described["reason"] = outcome.reason
        self.out.show(text, described)
        if outcome.ok:
            return
        if self.out.form != "json":
            if outcome.reason:
                self.out.note(f"ERROR: {outcome.reason}")
            if advice:
                self.out.note(f"HINT: {advice}")
        raise failures.Finished(failures.ExitCode.FAILURE)

    def fail(self, message: str, hint: str | None = None) -> NoReturn:
        """End the command with an error."""
        raise errors.ConPaaSError(message, hint=hint)
