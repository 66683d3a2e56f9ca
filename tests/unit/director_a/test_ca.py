from __future__ import annotations

import pathlib
import stat

import pytest
import sqlalchemy as sa
from cryptography import x509 as cx509

from conpaas.core import errors
from conpaas.core.https import identity, x509
from conpaas.director import ca, models, runtime

from . import conftest


@pytest.fixture
def authority(tmp_path: pathlib.Path) -> ca.Authority:
    made = ca.Authority(tmp_path / "certs")
    made.prepare(["director.example.org", "127.0.0.1"])
    return made


def contents(directory: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("*.pem")}


def test_the_director_listens_as_frontend_and_calls_as_director(authority: ca.Authority) -> None:
    assert authority.listening.identity.role == identity.ROLE_FRONTEND
    assert authority.listening.identity.names == ("director.example.org", "127.0.0.1")
    assert authority.listening.identity.cn == "director.example.org"
    assert authority.calling.identity.role == identity.ROLE_DIRECTOR


def test_keys_are_readable_by_their_owner_only(authority: ca.Authority) -> None:
    for path in authority.cert_dir.rglob("*key.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_preparing_again_changes_nothing(authority: ca.Authority) -> None:
    before = contents(authority.cert_dir)
    ca.Authority(authority.cert_dir).prepare(["director.example.org"])
    assert contents(authority.cert_dir) == before


def test_another_host_gets_a_certificate_of_the_same_authority(authority: ca.Authority) -> None:
    before = contents(authority.cert_dir)
    again = ca.Authority(authority.cert_dir)
    again.prepare(["new.example.org"])
    after = contents(authority.cert_dir)
    assert again.listening.identity.names == ("new.example.org",)
    assert before["ca_cert.pem"] == after["ca_cert.pem"]
    assert before["ca_key.pem"] == after["ca_key.pem"]


def test_a_certificate_near_its_end_is_renewed(authority: ca.Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ca, "OWN_DAYS", 59)
    (authority.cert_dir / "cert.pem").unlink()
    authority.prepare(["director.example.org"])
    first = authority.listening.identity.serial
    monkeypatch.setattr(ca, "OWN_DAYS", 1825)
    authority.prepare(["director.example.org"])
    second = authority.listening.identity.serial
    authority.prepare(["director.example.org"])
    assert first != second == authority.listening.identity.serial


def test_a_pair_that_does_not_fit_is_made_anew(authority: ca.Authority) -> None:
    (authority.cert_dir / "key.pem").write_text(x509.key_pem(x509.new_key()))
    authority.prepare(["director.example.org"])
    assert authority.listening.identity.role == identity.ROLE_FRONTEND


@pytest.mark.parametrize("lost", ["ca_key.pem", "ca_cert.pem"])
def test_an_incomplete_authority_is_never_replaced(authority: ca.Authority, lost: str) -> None:
    (authority.cert_dir / lost).unlink()
    before = contents(authority.cert_dir)
    with pytest.raises(errors.ConfigurationError, match="cannot be used") as caught:
        ca.Authority(authority.cert_dir).prepare(["other.example.org"])
    assert "backup" in str(caught.value.hint)
    assert contents(authority.cert_dir) == before


def test_a_key_of_another_authority_is_noticed(authority: ca.Authority) -> None:
    (authority.cert_dir / "ca_key.pem").write_text(x509.key_pem(x509.new_key()))
    with pytest.raises(errors.ConfigurationError, match="do not belong together"):
        ca.Authority(authority.cert_dir).prepare(["other.example.org"])


def test_a_users_certificate_is_signed_recorded_and_classic(director: runtime.Director, alice: models.User) -> None:
    with director.database.session() as session:
        key, pem = director.authority.issue_user(session, alice)
    certificate = x509.load_certificate(pem)
    who = x509.read_identity(pem)
    assert (who.role, who.uid, who.aid, who.cn) == ("user", alice.uid, 0, "alice")
    assert certificate.public_key() == x509.load_key(key).public_key()
    certificate.verify_directly_issued_by(x509.load_certificate(director.authority.ca_pem))
    assert certificate.extensions.get_extension_for_class(cx509.BasicConstraints).value.ca is False
    with director.database.reader() as session:
        record = session.get_one(models.Certificate, who.serial)
    assert (record.role, record.uid, record.fingerprint) == ("user", alice.uid, who.fingerprint)
    assert record.expires == certificate.not_valid_after_utc


def token_for(director: runtime.Director, role: str = "agent", uid: int = 7, aid: int = 9) -> str:
    with director.database.session() as session:
        return ca.new_token(session, role=role, uid=uid, aid=aid, vm="vm", now=director.clock())


def enrol(director: runtime.Director, token: str, csr: str) -> str:
    with director.database.session() as session:
        return director.authority.enrol(session, token, csr, director.clock())


@pytest.mark.parametrize("role", ["manager", "agent"])
def test_a_token_gives_what_the_director_decided_whatever_the_request_says(director: runtime.Director, role: str) -> None:
    key = x509.new_key()
    who = x509.read_identity(enrol(director, token_for(director, role), x509.make_csr(key, "CA")))
    assert (who.role, who.uid, who.aid, who.cn) == (role, 7, 9, "ConPaaS")


def test_the_same_request_again_gets_the_same_certificate(director: runtime.Director) -> None:
    token, csr = token_for(director), x509.make_csr(x509.new_key(), "x")
    assert enrol(director, token, csr) == enrol(director, f" {token}\n", f"{csr}\n\n")
    with director.database.reader() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(models.Certificate)) == 1


def test_a_token_works_for_one_key(director: runtime.Director) -> None:
    token = token_for(director)
    enrol(director, token, x509.make_csr(x509.new_key(), "x"))
    with pytest.raises(errors.Forbidden, match="already used"):
        enrol(director, token, x509.make_csr(x509.new_key(), "x"))


def test_a_bad_request_does_not_use_the_token_up(director: runtime.Director) -> None:
    token = token_for(director)
    with pytest.raises(errors.InvalidArgument):
        enrol(director, token, "nonsense")
    assert enrol(director, token, x509.make_csr(x509.new_key(), "x"))


def test_a_token_ends_after_an_hour(director: runtime.Director, clock: conftest.Clock) -> None:
    token, csr = token_for(director), x509.make_csr(x509.new_key(), "x")
    clock.forward(minutes=59, seconds=59)
    assert enrol(director, token, csr)
    clock.forward(seconds=1)
    with pytest.raises(errors.Forbidden, match="not valid, or no longer"):
        enrol(director, token, csr)


def test_tokens_are_not_stored(director: runtime.Director) -> None:
    token = token_for(director)
    with director.database.reader() as session:
        row = session.scalars(sa.select(models.Enrolment)).one()
    assert token not in repr(vars(row))


def test_old_tokens_are_deleted(director: runtime.Director, clock: conftest.Clock) -> None:
    token_for(director)
    clock.forward(hours=3)
    token_for(director)
    with director.database.reader() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(models.Enrolment)) == 1


@pytest.mark.parametrize("role", ["user", "frontend", "director", ""])
def test_no_token_for_other_roles(director: runtime.Director, role: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="A node cannot get a certificate of role"):
        token_for(director, role)


def test_an_application_that_ends_takes_its_certificates_and_tokens_with_it(director: runtime.Director) -> None:
    token, other = token_for(director), token_for(director, aid=10)
    pem = enrol(director, token_for(director), x509.make_csr(x509.new_key(), "x"))
    with director.database.session() as session:
        ca.revoke_application(session, 9, director.clock())
    with director.database.reader() as session:
        assert session.get_one(models.Certificate, x509.read_identity(pem).serial).revoked == director.clock()
    with pytest.raises(errors.Forbidden):
        enrol(director, token, x509.make_csr(x509.new_key(), "x"))
    assert enrol(director, other, x509.make_csr(x509.new_key(), "x"))
