"""Asking a cloud whether all is well with it, in bounded time, however long the cloud takes."""

from __future__ import annotations

import dataclasses
import threading
import time

from conpaas.core import errors
from conpaas.core.clouds import base

PATIENCE = 20.0
_lock = threading.Lock()
_under_way: set[str] = set()


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a cloud is well, in words, and how long it took to find out (seconds)."""

    ok: bool
    text: str
    seconds: float


def check(cloud: base.Cloud, patience: float = PATIENCE) -> Verdict:
    """Ask once. Of each cloud one question is under way at a time: a silent one holds one thread, whoever asks how often."""
    with _lock:
        if cloud.name in _under_way:
            raise errors.WrongState(f"A check of the cloud '{cloud.name}' is under way already.", hint="Try again in a minute.")
        _under_way.add(cloud.name)
    began = time.monotonic()
    answers: list[list[str]] = []

    def ask() -> None:
        try:
            answers.append(cloud.check())
        except Exception as error:  # noqa: BLE001 — told to the operator, who asked
            answers.append([str(error) or type(error).__name__])
        finally:
            with _lock:
                _under_way.discard(cloud.name)

    worker = threading.Thread(target=ask, name=f"check-{cloud.name}", daemon=True)
    try:
        worker.start()
    except RuntimeError:
        with _lock:
            _under_way.discard(cloud.name)
        raise
    worker.join(patience)
    seconds = round(time.monotonic() - began, 3)
    if not answers:
        return Verdict(False, f"The cloud did not answer within {patience:.0f} seconds.", seconds)
    problems = answers[0]
    return Verdict(not problems, " ".join(problems) or "The cloud answers, and its configuration can be used.", seconds)
