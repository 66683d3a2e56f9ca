"""A proxy between browser and front-end that changes what goes by: hidden fields, tokens, origins, ids, cookies; and sends it again."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from tests.support import frontends

from conpaas.director import invitations, models

FORMS = ("/apps", "/account", "/apps/new-from-manifest", "/apps/new-from-manifest/form", "/apps/{aid}")
EVIL = "https://evil.example.org"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[frontends.Whole]:
    with frontends.running(tmp_path_factory.mktemp("tampering")) as made:
        for name in ("alice", "bob"):
            made.register(name)
        made.register("opal", role="operator")
        yield made


@pytest.fixture(scope="module")
def alice(whole: frontends.Whole) -> frontends.Person:
    return whole.person("alice")


@pytest.fixture(scope="module")
def bob(whole: frontends.Whole) -> frontends.Person:
    return whole.person("bob")


def uid(whole: frontends.Whole, name: str) -> int:
    with whole.director.database.reader() as session:
        return int(session.scalars(sa.select(models.User.uid).filter_by(username=name)).one())


def aid_of(whole: frontends.Whole, name: str) -> int:
    with whole.director.database.reader() as session:
        return int(session.scalars(sa.select(models.Application.aid).filter_by(user_id=uid(whole, name)).order_by("aid").limit(1)).one())


def everything(whole: frontends.Whole) -> dict[str, list[tuple[object, ...]]]:
    """All that the Director has on record of people's things; logins and log-like tables left out."""
    kept = (models.User, models.Application, models.Service, models.LedgerEntry, models.Invitation, models.Certificate, models.OidcIdentity)
    with whole.director.database.reader() as session:
        return {one.__tablename__: sorted(tuple(map(str, row)) for row in session.execute(sa.select(one.__table__))) for one in kept}


class SentForm:
    """A form as it stands in a page: its address and its fields with their present values."""

    def __init__(self, text: str) -> None:
        opening = text[: text.index(">")]
        found = re.search(r'action="([^"]*)"', opening)
        self.action = html.unescape(found[1]) if found else ""
        self.post = 'method="post"' in opening
        self.fields = {
            html.unescape(name): html.unescape(value)
            for name, value in re.findall(r'<(?:input|button)[^>]*? name="([^"]+)"[^>]*? value="([^"]*)"', text)
        }


def forms(page: str) -> list[SentForm]:
    found = [SentForm(text) for text in re.findall(r"<form (.*?)</form>", page, re.DOTALL)]
    return [one for one in found if one.post]


def all_forms(whole: frontends.Whole, person: frontends.Person) -> list[SentForm]:
    found: dict[str, SentForm] = {}
    for path in FORMS:
        for one in forms(person.page(path.format(aid=aid_of(whole, person.name)))):
            found.setdefault(one.action, one)
    return list(found.values())


def test_every_form_has_the_token_and_does_nothing_without_it(
    whole: frontends.Whole, alice: frontends.Person, bob: frontends.Person
) -> None:
    before = everything(whole)
    seen = all_forms(whole, alice)
    assert len(seen) >= 10, [one.action for one in seen]
    for form in seen:
        token = form.fields["csrf"]
        rest = {**form.fields, "name": "stolen", "typed": "New Application"}
        del rest["csrf"]
        for changed in (
            {},
            {"csrf": ""},
            {"csrf": token[:-1]},
            {"csrf": token.upper() + "x"},
            {"csrf": bob.token()},
            {"csrf": [token[:8], token]},
        ):
            if changed == {"csrf": [token[:8], token]}:
                continue
            reply = alice.raw_post(form.action, {**rest, **changed})
            assert reply.status_code == 403, (form.action, changed, reply.status_code)
        for headers in (
            {"Origin": EVIL},
            {"Origin": "null"},
            {"Origin": f"{whole.url}.evil.example.org"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ):
            assert alice.raw_post(form.action, {**rest, "csrf": token}, headers=headers).status_code == 403, (form.action, headers)
        assert alice.get(form.action, params={**rest, "csrf": token}).status_code in (200, 303, 404), form.action  # a GET does nothing
    assert everything(whole) == before


def test_a_cookie_of_another_does_not_go_with_ones_own_token(
    whole: frontends.Whole, alice: frontends.Person, bob: frontends.Person
) -> None:
    before = everything(whole)
    thief = frontends.Person(whole.url)
    for name, value in bob.web.cookies.items():
        thief.web.cookies.set(name, value)
    reply = thief.raw_post("/apps", {"csrf": alice.token(), "name": "stolen"})
    assert reply.status_code == 403
    for name, value in bob.web.cookies.items():
        thief.web.cookies.set(name, value[:-2] + ("AA" if not value.endswith("AA") else "BB"))
    assert thief.get("/apps").headers["location"].startswith("/sign-in")
    assert everything(whole) == before


def test_what_was_sent_before_means_nothing_after_the_sign_out(whole: frontends.Whole) -> None:
    carla = whole.register("carla")
    assert carla
    person = whole.person("carla")
    cookies, token = dict(person.web.cookies), person.token()
    assert person.post("/apps", name="first").status_code == 303
    person.post("/sign-out")
    before = everything(whole)
    replayed = frontends.Person(whole.url)
    for name, value in cookies.items():
        replayed.web.cookies.set(name, value)
    reply = replayed.raw_post("/apps", {"csrf": token, "name": "second"})
    assert reply.status_code == 303 and reply.headers["location"].startswith("/sign-in")
    assert everything(whole) == before


def test_the_ids_of_others_in_hidden_fields_and_addresses(whole: frontends.Whole, alice: frontends.Person, bob: frontends.Person) -> None:
    """Everything that a form of alice's names by a number or serial, replaced by what is bob's or the operator's."""
    with whole.director.database.session() as session:
        now = whole.director.clock()
        row, _ = invitations.invite(session, invitations.Wanted(credit=5), "opal", now)
        number = row.id
        identity = models.OidcIdentity(uid=uid(whole, "bob"), issuer="https://idp.example", subject="bob", linked=now)
        session.add(identity)
        session.flush()
        linked = identity.id
        serial = session.scalars(sa.select(models.Certificate.serial).filter_by(uid=uid(whole, "bob"), role="user")).first()
    theirs = aid_of(whole, "bob")
    before = everything(whole)
    tried = [
        ("/account/certificates/revoke", {"serial": serial}),
        ("/account/identities/unlink", {"id": linked}),
        ("/operator/invitations/withdraw", {"id": number}),
        ("/operator/invitations", {"email": "x@example.org", "credit": "1000"}),
        (f"/operator/users/{uid(whole, 'alice')}/credit", {"credit": "1000"}),
        (f"/operator/users/{uid(whole, 'alice')}/role", {"role": "operator"}),
        (f"/operator/users/{uid(whole, 'bob')}/active", {"active": "false"}),
        (f"/operator/users/{uid(whole, 'bob')}/password", {"typed": "bob"}),
        ("/operator/users/new", {"username": "mallory", "email": "mallory@example.org", "role": "operator"}),
        (f"/apps/{theirs}/rename", {"name": "stolen"}),
        (f"/apps/{theirs}/start", {"cloud": "default"}),
        (f"/apps/{theirs}/stop", {"typed": "New Application"}),
        (f"/apps/{theirs}/delete", {"typed": "New Application"}),
        (f"/apps/{theirs}/services", {"type": "helloworld"}),
        ("/apps/-1/delete", {"typed": "New Application"}),
        ("/apps/0/delete", {"typed": ""}),
        ("/apps/99999999999999999999999999/delete", {"typed": ""}),
    ]
    for path, fields in tried:
        reply = alice.post(path, **fields)
        assert reply.status_code in (400, 403, 404, 409), (path, reply.status_code)
        assert "Traceback" not in reply.text and "incident" not in reply.text.lower(), path
    assert everything(whole) == before


@pytest.mark.parametrize(
    "target", [EVIL, "//evil.example.org", "/\\evil.example.org", "javascript:alert(1)", "/apps\r\nSet-Cookie: a=b", "https:evil"]
)
def test_no_way_back_leads_elsewhere(whole: frontends.Whole, target: str) -> None:
    person = whole.person()
    for path, fields in (
        ("/theme", {"theme": "dark", "back": target}),
        ("/sign-in", {"username": "bob", "password": frontends.PASSWORD, "next": target}),
    ):
        reply = person.post(path, **fields)
        assert reply.status_code == 303, (path, reply.text)
        assert reply.headers["location"] in ("/", "/apps"), reply.headers["location"]
        assert "a=b" not in reply.headers.get("set-cookie", "")
        person.csrf = ""


def test_fields_that_a_form_does_not_have_change_nothing(whole: frontends.Whole) -> None:
    """Who registers or changes a profile cannot give themselves credits, a role, an id or a quota."""
    person = whole.person()
    fields = {"username": "dora", "email": "dora@example.org", "password": frontends.PASSWORD, "again": frontends.PASSWORD}
    more = {"credit": "100000", "role": "operator", "uid": "1", "quota_vms": "1000", "unconfirmed": "", "operator": "true"}
    assert person.post("/register", **fields, **more).headers["location"] == "/apps"
    person.csrf = ""
    assert person.get("/operator/users").status_code == 403
    profile = {"fname": "D", "lname": "", "email": "dora@example.org", "affiliation": "", "username": "opal", **more}
    assert person.post("/account/profile", **profile).status_code == 303
    with whole.director.database.reader() as session:
        user = session.scalars(sa.select(models.User).filter_by(username="dora")).one()
        credit = session.scalar(sa.select(sa.func.sum(models.LedgerEntry.amount)).filter_by(uid=user.uid))
    assert (user.role, user.quota_vms) == ("user", None)
    assert credit == whole.director.config.max_credit


@pytest.mark.parametrize(
    "name",
    [
        "\"'><img src=x onerror=alert(1)>",
        "<script>alert(1)</script>",
        "🐘🐘 with 'quotes' and \"more\"",
        "{{ 7*7 }}{% raw %}",
        "&amp;&lt;",
        "\u202egnirts desrever",
        "../../etc/passwd",
        "x" * 255,
        "naïve\u00a0name",
    ],
)
def test_any_name_is_shown_as_it_is(whole: frontends.Whole, alice: frontends.Person, name: str) -> None:
    reply = alice.post("/apps", name=name)
    assert reply.status_code == 303, reply.text
    address = reply.headers["location"]
    for page in (alice.page(address), alice.page("/apps")):
        assert html.escape(name, quote=False).replace("'", "&#39;").replace('"', "&#34;") in page
        assert "<script>alert" not in page and "<img src=x" not in page
        assert "49" not in re.sub(r"[0-9a-f]{16,}", "", page.partition("<main")[2].partition(name[:3])[0]) or "{{" not in name
    assert alice.post(f"{address}/delete", typed=name).status_code == 303


@pytest.mark.parametrize("name", ["x" * 10_000, "🐘" * 10_000, "\u0000", "a\nb", "x" * 257, " ", ""])
def test_a_name_that_cannot_be_is_a_sentence(whole: frontends.Whole, alice: frontends.Person, name: str) -> None:
    before = everything(whole)
    aid = aid_of(whole, "alice")
    for path in ("/apps", f"/apps/{aid}/rename"):
        reply = alice.post(path, name=name)
        assert reply.status_code in (400, 409), (path, reply.status_code)
        assert "incident" not in reply.text.lower() and len(reply.content) < 150_000
    fields = {"fname": name, "lname": name, "affiliation": name, "email": "alice@example.org"}
    reply = alice.post("/account/profile", **fields)
    assert reply.status_code in (303, 400, 409)
    assert len(reply.content) < 150_000
    assert before["application"] == everything(whole)["application"]


def test_a_body_of_another_kind_is_an_error_page(whole: frontends.Whole, alice: frontends.Person) -> None:
    before = everything(whole)
    token = alice.token()
    for kind in ("application/json", "text/plain", "multipart/form-data", "multipart/form-data; boundary=x", "application/xml"):
        reply = alice.raw_post("/apps", f'{{"csrf": "{token}", "name": "x"}}', headers={"Content-Type": kind, "X-CSRF-Token": token})
        assert reply.status_code in (400, 403), (kind, reply.status_code)
        assert "incident" not in reply.text.lower()
    assert everything(whole) == before
