"""Endpoints that hand out certificates."""

from __future__ import annotations

import io
import zipfile

import flask

from conpaas.core import errors, params
from conpaas.core.https import identity
from conpaas.director import auth, certificates, endpoint, models, runtime, users

blueprint = flask.Blueprint("certificates", __name__)

PEM_TYPE = "application/x-pem-file"
CSR = params.Param(
    "csr", params.Text(max_length=16 * 1024, non_empty=True), help="Certificate signing request in PEM: a text field or a file part."
)


def _pem(text: str) -> flask.Response:
    return flask.Response(text, content_type=PEM_TYPE)


@endpoint.endpoint(blueprint, "/ca.pem", methods=["GET"], auth="none")
def ca_certificate() -> flask.Response:
    """The certificate of this deployment's CA in PEM; compare its SHA-256 fingerprint with what the operator told you."""
    return _pem(runtime.current().authority.ca_pem)


@endpoint.endpoint(
    blueprint,
    "/getcerts",
    methods=["GET", "POST"],
    auth="password",
    params=[params.Param("uuid", params.Text(), "", help="Ignored."), params.Param("openid", params.Text(), "", help="Ignored.")],
)
def getcerts(*, caller: auth.Caller, **_: str) -> flask.Response:
    """A zip of `key.pem`, `cert.pem` and `ca_cert.pem`: a new key and certificate of the user, valid for one year."""
    director = runtime.current()
    with director.database.session() as session:
        key, certificate = director.authority.issue_user(session, users.still_proven(session, caller))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (("key.pem", key), ("cert.pem", certificate), ("ca_cert.pem", director.authority.ca_pem)):
            member = zipfile.ZipInfo(name, date_time=director.clock().timetuple()[:6])
            member.external_attr = (0o600 if name == "key.pem" else 0o644) << 16
            archive.writestr(member, text)
    response = flask.Response(packed.getvalue(), content_type="application/zip")
    response.headers["Content-Disposition"] = "attachment; filename=certs.zip"
    response.headers["Cache-Control"] = "no-store"
    return response


@endpoint.endpoint(blueprint, "/ca/get_cert.php", auth="manager", params=[CSR], file_fields=["csr"])
def sign_agent(*, csr: str, caller: auth.Caller) -> flask.Response:
    """An agent's certificate for the calling manager's own application. The request's subject is not looked at."""
    director = runtime.current()
    assert caller.uid is not None
    assert caller.aid is not None
    with director.database.session() as session:
        return _pem(director.authority.issue_node(session, identity.ROLE_AGENT, caller.uid, caller.aid, csr))


@endpoint.endpoint(
    blueprint,
    "/ca/enroll",
    auth="none",
    params=[
        params.Param("token", params.Text(max_length=256, secret=True, non_empty=True), help="The one-time token of the VM's user-data."),
        CSR,
    ],
    file_fields=["csr", "token"],
)
def enroll(*, token: str, csr: str) -> flask.Response:
    """The certificate of a new VM. A token works for one signing request; asking again with the same one gives the same answer.

    Errors have status 403, so that a boot script can tell them from a certificate.
    """
    director = runtime.current()
    try:
        with director.database.session() as session:
            return _pem(director.authority.enrol(session, token, csr, director.clock()))
    except (errors.Forbidden, errors.InvalidArgument) as error:
        raise auth.Refused(403, {"error": str(error)}) from error


@endpoint.endpoint(
    blueprint,
    "/operator/revoke_certificate",
    auth="operator",
    params=[params.Param("serial", params.Text(max_length=64), help="In hexadecimal.")],
)
def revoke_certificate(*, serial: str) -> dict[str, object]:
    """Refuse one certificate from now on."""
    director = runtime.current()
    with director.database.session() as session:
        record = session.get(models.Certificate, certificates.normalised(serial))
        if record is None or record.role == identity.ROLE_DIRECTOR:
            raise errors.NotFound("There is no certificate with this serial number.")
        record.revoked = record.revoked or director.clock()
    return {}
