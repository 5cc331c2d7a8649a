"""Signing in at an issuer of OpenID Connect, by a real one on this machine: who gets in, and who does not."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from stream_guard.console.security.pending import PENDING_S, PendingSignIns
from stream_guard.console.security.roles import Role
from stream_guard.console.security.tokens import tokens_of
from stream_guard.console.sources.state import Health
from stream_guard.core.errors import SettingsError
from stream_guard.settings import ConsoleSettings
from stream_guard.testing import ManualClock
from tests.console import Served, Visitor, served
from tests.hang import HANG_S
from tests.issuer import SECRET, TestIssuer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.console import Answer

ROLES = {"trust-leads": "lead", "authors": "author", "reviewers": "reviewer"}
HOSTILE = "<script>alert(1)</script>\u202e javascript:alert(1)\nlead l-1"


async def until(served_: Served, health: Health) -> None:
    async with asyncio.timeout(HANG_S):
        while served_.sources.issuer.state.health is not health:  # noqa: ASYNC110 - no event of ours
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def place(
    tmp_path: Path,
    issuer: TestIssuer,
    **oidc: Any,  # noqa: ANN401 - values of settings
) -> AsyncIterator[tuple[Served, Visitor]]:
    """Serve a console that knows the issuer, and a browser where nobody is signed in."""
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    settings = {"issuer": issuer.url, "roles": ROLES, "client_secret_file": secret} | oidc
    async with served(oidc=settings) as console, console.visitor(None) as visitor:
        await until(console, Health.FRESH)
        yield console, visitor


async def begin(visitor: Visitor) -> str:
    """Go to the issuer, be let in there, and return the path back at the console."""
    answer = await visitor.get("/sign-in/oidc")
    assert answer.status == 303, answer.words
    async with visitor.session.get(answer.headers["Location"], allow_redirects=False) as there:
        back = there.headers["Location"]
    assert back.startswith(visitor.url)
    return back.removeprefix(visitor.url)


async def sign_in(visitor: Visitor) -> Answer:
    return await visitor.get(await begin(visitor))


async def refused(visitor: Visitor, answer: Answer, words: str, status: int = 403) -> None:
    assert answer.status == status
    assert words in answer.words, answer.words
    assert (await visitor.get("/now")).status == 303, "nobody is signed in"


async def test_the_issuer_says_who_somebody_is_and_the_claim_what_they_may(tmp_path: Path) -> None:
    async with TestIssuer() as issuer, place(tmp_path, issuer) as (_, visitor):
        page = await visitor.get("/sign-in")
        assert f"Sign in at {issuer.url}" in page.words
        assert (await sign_in(visitor)).status == 200
        now = await visitor.get("/now")
        assert "person-7, reviewer" in now.words
        assert (await visitor.post("/sign-out", {})).status == 303
        assert (await visitor.get("/now")).status == 303


async def test_the_request_has_a_challenge_a_state_and_a_nonce_and_they_differ(
    tmp_path: Path,
) -> None:
    async with TestIssuer() as issuer, place(tmp_path, issuer) as (_, visitor):
        queries = []
        for _ in range(2):
            answer = await visitor.get("/sign-in/oidc")
            queries.append(parse_qs(urlsplit(answer.headers["Location"]).query))
            assert "SameSite=Lax" in answer.headers["Set-Cookie"] or "Lax" in str(answer.headers)
        first, second = queries
        assert first["code_challenge_method"] == ["S256"]
        assert first["scope"] == ["openid profile"]
        assert first["redirect_uri"] == [f"{visitor.url}/sign-in/oidc/done"]
        for name in ("state", "nonce", "code_challenge"):
            assert len(first[name][0]) >= 32
            assert first[name] != second[name]


@pytest.mark.parametrize(
    ("groups", "role"),
    [
        (["reviewers", "trust-leads"], Role.LEAD),
        ("authors", Role.AUTHOR),
        (["everybody", 7, None, "authors", "reviewers"], Role.AUTHOR),
        (["everybody"], Role.READ_ONLY),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
async def test_the_highest_role_counts_however_the_settings_are_sorted(
    tmp_path: Path, groups: object, role: Role, order: int
) -> None:
    # Helm sorts a table by its keys, so the order of the values file is not that of the settings.
    roles = dict(list((ROLES | {"everybody": "read-only"}).items())[::order])
    async with TestIssuer() as issuer, place(tmp_path, issuer, roles=roles) as (_, visitor):
        issuer.claims = {"groups": groups}
        assert (await sign_in(visitor)).status == 200
        assert f"person-7, {role}" in (await visitor.get("/now")).words


async def test_a_claim_may_be_deep_and_a_client_without_a_secret(tmp_path: Path) -> None:
    deep = {"role_claim": "/realm_access/roles", "name_claim": "/email"}
    async with TestIssuer() as issuer:
        issuer.public = True
        issuer.claims = {"realm_access": {"roles": ["authors"]}, "email": "ada@example.org"}
        async with place(tmp_path, issuer, **deep, client_secret_file=None) as (_, visitor):
            assert (await sign_in(visitor)).status == 200
            assert "ada@example.org, author" in (await visitor.get("/now")).words


@pytest.mark.parametrize("groups", [None, [], ["everybody"], {"reviewers": True}, "reviewers "])
async def test_who_has_no_role_is_refused_in_plain_words(tmp_path: Path, groups: object) -> None:
    async with TestIssuer() as issuer, place(tmp_path, issuer) as (_, visitor):
        issuer.claims = {"groups": groups}
        await refused(visitor, await sign_in(visitor), "you have no role here. Ask a lead")


NOW_S = int(time.time())


@pytest.mark.parametrize(
    ("claims", "word"),
    [
        ({"nonce": "of-another-sign-in"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"aud": "another-client"}, "aud"),
        ({"aud": ["another-client"]}, "aud"),
        ({"aud": None}, "aud"),
        ({"azp": "another-client", "aud": ["stream-guard", "another-client"]}, "azp"),
        ({"iss": "https://evil.example"}, "iss"),
        ({"exp": NOW_S - 3_600}, "expired"),
        ({"exp": None}, "exp"),
        ({"exp": "tomorrow"}, "exp"),
        ({"nbf": NOW_S + 3_600}, "not yet valid"),
        ({"sub": None}, "sub"),
    ],
)
async def test_a_token_that_is_not_for_this_sign_in_is_refused(
    tmp_path: Path, claims: dict[str, object], word: str
) -> None:
    async with TestIssuer() as issuer, place(tmp_path, issuer) as (_, visitor):
        issuer.claims = claims
        answer = await sign_in(visitor)
        assert word in answer.words
        await refused(visitor, answer, "The issuer's answer is not valid")


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
async def test_a_token_that_anybody_could_have_made_is_refused(
    tmp_path: Path, algorithm: str
) -> None:
    async with TestIssuer() as issuer, place(tmp_path, issuer) as (_, visitor):
        issuer.algorithm = algorithm
        await refused(visitor, await sign_in(visitor), "The issuer's answer is not valid")


async def test_a_token_of_a_key_that_the_issuer_does_not_publish_is_refused(tmp_path: Path) -> None:
    async with TestIssuer() as issuer, place(tmp_path, issuer) as (_, visitor):
        issuer.rotate()  # it is not read again so soon
        await refused(visitor, await sign_in(visitor), "The issuer's answer is not valid")


async def test_a_new_key_of_the_issuer_is_taken(tmp_path: Path) -> None:
    clock = ManualClock()
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    async with TestIssuer() as issuer:
        settings = {"issuer": issuer.url, "roles": ROLES, "client_secret_file": secret}
        async with served(clock=clock, oidc=settings) as console, console.visitor(None) as visitor:
            await until(console, Health.FRESH)
            issuer.rotate()
            now_s = clock.wall_ns() // 1_000_000_000
            issuer.claims = {"exp": now_s + 3_600, "iat": now_s}
            clock.advance(60)
            assert (await sign_in(visitor)).status == 200
            assert issuer.asked.count("keys") == 2


async def test_a_state_counts_once_and_in_the_browser_that_began_it(tmp_path: Path) -> None:
    async with TestIssuer() as issuer, place(tmp_path, issuer) as (console, visitor):
        back = await begin(visitor)
        async with console.visitor(None) as other:
            await refused(other, await other.get(back), "begun by another browser")
        await refused(visitor, await visitor.get(back), "finished already")
        back = await begin(visitor)
        assert (await visitor.get(back)).status == 200
        async with console.visitor(None) as other:
            await refused(other, await other.get(back), "finished already")
        made_up = await visitor.get("/sign-in/oidc/done?code=x&state=made-up")
        assert made_up.status == 403


def test_a_sign_in_that_takes_too_long_ends() -> None:
    clock = ManualClock()
    pending = PendingSignIns(clock)
    state, begun = pending.begin("http://127.0.0.1/done")
    clock.advance(PENDING_S)
    assert pending.finish(state, begun.browser) is None


def test_a_visitor_who_begins_thousands_of_sign_ins_does_not_end_those_of_others() -> None:
    clock = ManualClock()
    pending = PendingSignIns(clock)
    first, begun = pending.begin("http://127.0.0.1/done")
    for _ in range(5_000):
        pending.begin("http://127.0.0.1/done")
    assert pending.finish(first, begun.browser) is begun
    clock.advance(PENDING_S)
    pending.begin("http://127.0.0.1/done")
    assert len(pending) == 1, "what is too old keeps no memory"


def test_the_number_of_sign_ins_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_guard.console.security.pending.PENDING_MAX", 10)
    pending = PendingSignIns(ManualClock())
    first, begun = pending.begin("http://127.0.0.1/done")
    for _ in range(10):
        pending.begin("http://127.0.0.1/done")
    assert len(pending) == 10
    assert pending.finish(first, begun.browser) is None


async def test_signing_in_makes_a_new_session_and_ends_the_one_before(tmp_path: Path) -> None:
    async with TestIssuer() as issuer, place(tmp_path, issuer) as (console, visitor):
        await sign_in(visitor)
        [before] = [cookie for cookie in visitor.session.cookie_jar if cookie.key == "stream-guard"]
        await sign_in(visitor)
        [after] = [cookie for cookie in visitor.session.cookie_jar if cookie.key == "stream-guard"]
        assert before.value != after.value
        assert (await visitor.get("/now")).status == 200
        async with console.visitor(None) as thief:
            stolen = await thief.get("/now", Cookie=f"stream-guard={before.value}")
            assert stolen.status == 303


async def test_a_hostile_name_becomes_a_pseudonym_and_hostile_words_are_escaped(
    tmp_path: Path,
) -> None:
    named = {"name_claim": "/name"}
    async with TestIssuer() as issuer, place(tmp_path, issuer, **named) as (_, visitor):
        names = set()
        for name in (HOSTILE, " ", "x" * 200, "", 7, None):
            issuer.claims = {"name": name}
            assert (await sign_in(visitor)).status == 200
            page = await visitor.get("/now")
            assert "<script>alert" not in page.text
            assert "\u202e" not in page.text
            names |= {word for word in page.words.split() if word.startswith("person-")}
        [pseudonym] = names
        assert len(pseudonym) == len("person-,") + 16
        back = await begin(visitor)
        path, _, query = back.partition("?")
        state = parse_qs(query)["state"][0]
        answer = await visitor.get(
            f"{path}?state={state}&error=access_denied&error_description=%3Cimg%20src=x%3E%E2%80%AE"
        )
        assert "access_denied" in answer.words
        assert "<img" not in answer.text
        assert "\u202e" not in answer.text
        await refused(visitor, answer, "The issuer refuses this sign-in")


async def test_a_code_that_the_issuer_does_not_know_is_its_own_refusal(tmp_path: Path) -> None:
    async with TestIssuer() as issuer, place(tmp_path, issuer) as (_, visitor):
        back = (await begin(visitor)).replace("code=code-", "code=other-")
        answer = await visitor.get(back)
        assert "<b>this" not in answer.text
        await refused(visitor, answer, "invalid_grant")


async def test_while_the_issuer_is_away_the_page_says_so_and_tokens_work() -> None:
    async with TestIssuer() as issuer:
        url = issuer.url
    settings = {"issuer": url, "roles": ROLES}
    async with served(oidc=settings) as console, console.visitor(None) as visitor:
        await until(console, Health.AWAY)
        page = await visitor.get("/sign-in")
        assert f"{url} cannot be reached since" in page.words
        assert "You can sign in by a token." in page.words
        assert len(page.tree.xpath("//main//time")) == 1
        await refused(
            visitor, await visitor.get("/sign-in/oidc"), "The issuer cannot be asked", status=503
        )
        assert page.tree.xpath("//input[@name='token']")
        async with console.visitor(Role.LEAD) as lead:
            assert "Issuer of sign-ins: cannot be read since" in (await lead.get("/now")).words


async def test_an_issuer_that_goes_in_the_middle_is_named(tmp_path: Path) -> None:
    async with TestIssuer() as issuer, place(tmp_path, issuer) as (_, visitor):
        back = await begin(visitor)
        await issuer.go()
        await refused(visitor, await visitor.get(back), "The issuer cannot be asked", status=503)
        await issuer.come()
        assert (await sign_in(visitor)).status == 200


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"padding": "x" * (2 << 20)}, "is longer than"),
        ({"url": "https://evil.example"}, "console.oidc.issuer must be the same text"),
        ({"keys": []}, "no key that could have signed"),
    ],
)
async def test_an_issuer_whose_documents_are_wrong_is_away(
    wrong: dict[str, Any], words: str
) -> None:
    async with TestIssuer() as issuer:
        settings = {"issuer": issuer.url, "roles": ROLES}
        for name, value in wrong.items():
            setattr(issuer, name, value)
        async with served(oidc=settings) as console:
            await until(console, Health.AWAY)
            assert words in console.sources.issuer.state.because


async def test_where_no_token_can_work_none_is_asked_for() -> None:
    oidc = {"issuer": "https://login.example.org", "roles": ROLES}
    url = "https://console.example.org"
    async with (
        served(oidc=oidc, public_url=url, host="0.0.0.0") as console,  # noqa: S104 - others reach it
        console.visitor(None) as visitor,
    ):
        page = await visitor.get("/sign-in", Host="console.example.org")
        assert page.status == 200
        assert "Sign in at https://login.example.org" in page.words
        assert "token" not in page.words
        assert page.tree.xpath("//input") == []


async def test_another_site_cannot_begin_a_sign_in(tmp_path: Path) -> None:
    async with TestIssuer() as issuer, place(tmp_path, issuer) as (_, visitor):
        answer = await visitor.get("/sign-in/oidc", **{"Sec-Fetch-Site": "cross-site"})
        assert answer.status == 200
        assert issuer.url not in answer.text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"issuer": "http://login.example.org", "roles": ROLES}, "https://"),
        ({"issuer": "https://login.example.org"}, "roles is empty"),
        ({"issuer": "https://x.example", "roles": ROLES, "scopes": ["profile"]}, "openid"),
        ({"issuer": "https://x.example", "roles": {"a": "king"}}, "lead"),
        ({"issuer": "https://x.example", "roles": ROLES, "role_claim": "groups"}, "pointer"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ConsoleSettings(oidc=settings)  # type: ignore[arg-type]


def test_with_an_issuer_others_may_reach_the_console_without_tokens() -> None:
    oidc = {"issuer": "https://login.example.org", "roles": ROLES}
    url = "https://console.example.org"
    owner_of = tokens_of(ConsoleSettings(host="192.0.2.1", public_url=url, oidc=oidc))  # type: ignore[arg-type]
    assert owner_of is not None
    assert owner_of("") is None


@pytest.mark.parametrize("url", [None, "http://console.example.org"])
def test_an_issuer_sends_nobody_back_without_tls(url: str | None, tmp_path: Path) -> None:
    oidc = {"issuer": "https://login.example.org", "roles": ROLES}
    people = tmp_path / "tokens"
    people.write_text(f"lead l-1 {'x' * 32}\n")
    people.chmod(0o600)
    with pytest.raises(SettingsError, match=r"console\.public_url .* https://"):
        tokens_of(
            ConsoleSettings(host="192.0.2.1", public_url=url, tokens_file=people, oidc=oidc)  # type: ignore[arg-type]
        )


@pytest.mark.parametrize("url", [None, "http://localhost:8095"])
def test_an_issuer_may_send_people_back_to_this_machine(url: str | None) -> None:
    oidc = {"issuer": "https://login.example.org", "roles": ROLES}
    assert tokens_of(ConsoleSettings(public_url=url, oidc=oidc)) is None  # type: ignore[arg-type]
