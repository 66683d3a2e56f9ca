"""Certificates that the Director has revoked are refused by managers."""

from __future__ import annotations

import pytest

from conpaas.core import errors, revocation
from conpaas.core.https import identity

ALICE = identity.PeerIdentity(identity.ROLE_USER, uid=1, aid=0, serial="a1")
OTHER = identity.PeerIdentity(identity.ROLE_USER, uid=1, aid=0, serial="a2")
DIRECTOR = identity.PeerIdentity(identity.ROLE_DIRECTOR, serial="a1")
STRANGER = identity.PeerIdentity(identity.ROLE_USER, uid=2, aid=0, serial="b1")
CALLERS = identity.manager_callers(1, 7)


def test_a_revoked_certificate_is_refused_and_no_other() -> None:
    told: list[str] = []
    revoked = revocation.Revocations(lambda: told)
    check = revoked.guard(CALLERS)
    revoked.look()
    check(ALICE)
    told.append("a1")
    revoked.look()
    with pytest.raises(errors.Forbidden, match="was revoked") as refused:
        check(ALICE)
    assert "cps-user get_certificate" in (refused.value.hint or "")
    check(OTHER)
    check(DIRECTOR)
    with pytest.raises(errors.Forbidden, match="may not be called by"):
        check(STRANGER)


def test_what_was_told_last_counts_while_the_director_is_silent() -> None:
    answers: list[list[str] | errors.ConPaaSError] = [["a1"], errors.Unreachable("nobody there"), ["a2"]]

    def ask() -> list[str]:
        answer = answers.pop(0)
        if isinstance(answer, errors.ConPaaSError):
            raise answer
        return answer

    revoked = revocation.Revocations(ask)
    check = revoked.guard(CALLERS)
    for _ in range(2):
        revoked.look()
        with pytest.raises(errors.Forbidden, match="was revoked"):
            check(ALICE)
    revoked.look()
    check(ALICE)


def test_it_is_asked_again_and_again_until_the_end() -> None:
    asked: list[int] = []
    revoked = revocation.Revocations(lambda: asked.append(1) or ["a1"], interval=0.01)  # type: ignore[func-returns-value]
    revoked.start()
    for _ in range(1000):
        if len(asked) > 2:
            break
        revoked._closing.wait(0.01)
    revoked.close()
    assert len(asked) > 2
