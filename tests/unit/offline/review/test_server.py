"""The HTTP API: who may do what, what it answers, and that its description is what it serves."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yaml
from jsonschema import Draft202012Validator

from stream_guard.core.errors import BrokerError, SettingsError
from stream_guard.offline.review.api import BODY_BYTES_MAX, ROUTES, openapi
from stream_guard.offline.review.projection import Projection
from stream_guard.offline.review.queue import Person, ReviewQueue
from stream_guard.offline.review.server import Parts, ReviewServer
from stream_guard.offline.review.store import Store
from stream_guard.offline.review.tokens import Tokens
from stream_guard.records.contracts import writer_schema
from stream_guard.records.review_audit import WHAT
from stream_guard.service.connections import Connections
from stream_guard.settings import ReviewSettings
from stream_guard.testing import ManualClock
from tests.unit.offline.review.topics import KAFKA, Topics, apply, decision_about

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stream_guard.records.decision import Decision

ROOT = Path(__file__).parents[4]
ENTRY = Draft202012Validator(writer_schema("review-audit-1.0.json"))
TOKENS = {"reviewer": "r" * 32, "lead": "l" * 32, "read-only": "o" * 32, "other": "x" * 32}


class Served:
    """A server over five items, and a client of it."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(str(folder / "review.sqlite"))
        self.projection = Projection(self.store, KAFKA)
        self.clock = ManualClock()
        self.topics = Topics()
        self.names = [self.topics.item(n, decision="violates") for n in range(5)]
        apply(self.projection, self.topics.records)
        self.written: list[Decision] = []
        self.broken = False
        self.entries: list[dict[str, Any]] = []
        self.audit_broken = False
        tokens = folder / "tokens"
        tokens.write_text(
            "# who may ask\n"
            f"reviewer r-1 {TOKENS['reviewer']}\nreviewer r-2 {TOKENS['other']}\n"
            f"lead l-1 {TOKENS['lead']}\nread-only o-1 {TOKENS['read-only']}\n"
        )
        parts = Parts(
            ReviewQueue(self.store, lease_ms=60_000),
            self.projection,
            Tokens(tokens),
            self.catch_up,
            self.write,
            self.text_of,
            self.clock,
            self.audit,
        )
        self.server = ReviewServer(ReviewSettings(port=0), parts, Connections)
        self.session: aiohttp.ClientSession | None = None

    async def catch_up(self) -> int:
        if self.broken:
            raise BrokerError("no broker")
        return 0

    async def write(self, decision: Decision) -> None:
        if self.broken:
            raise BrokerError("no broker")
        self.written.append(decision)

    async def audit(self, entry: dict[str, Any]) -> None:
        if self.audit_broken:
            raise BrokerError("no broker")
        ENTRY.validate(entry)
        # Nothing was decided before the entry was written.
        self.entries.append(entry | {"decided": len(self.written)})

    async def text_of(self, item: dict[str, Any]) -> str | None:
        return f"text of {item['content']['id']}"

    async def ask(
        self,
        method: str,
        path: str,
        role: str | None = "reviewer",
        body: Any = None,  # noqa: ANN401
        data: bytes | None = None,
    ) -> tuple[int, Any]:
        assert self.session is not None
        headers = {} if role is None else {"Authorization": f"Bearer {TOKENS.get(role, role)}"}
        url = f"http://127.0.0.1:{self.server.port}{path}"
        async with self.session.request(
            method, url, headers=headers, json=body, data=data
        ) as answer:
            if answer.content_type == "application/json":
                return answer.status, await answer.json()
            return answer.status, await answer.text()


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Served]:
    served = Served(folder)
    await served.server.start()
    try:
        async with aiohttp.ClientSession() as session:
            served.session = session
            await served.server.caught_up.wait()
            yield served
    finally:
        await served.server.stop()
        served.store.close()


def test_the_description_is_the_one_that_is_published() -> None:
    published = yaml.safe_load((ROOT / "docs/contracts/review-openapi.yaml").read_text("utf-8"))
    assert published == openapi(), "run: make contracts"


async def test_the_description_names_what_is_served(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        status, document = await served.ask("GET", "/openapi.json", None)
        assert (status, document) == (200, openapi())
        assert served.server._runner is not None
        found = {
            (route.method.lower(), route.resource.canonical)
            for route in served.server._runner.app.router.routes()
            if route.resource is not None and route.method != "HEAD"
        }
        described = {
            (method, path) for path, methods in document["paths"].items() for method in methods
        }
        assert found - described == {("get", p) for p in ("/openapi.json", "/livez", "/readyz")}
        assert described <= found


def check(document: dict[str, Any], kind: str, answer: Any) -> None:  # noqa: ANN401
    """Hold an answer to its schema."""
    schema = {"$ref": f"#/components/schemas/{kind}", "components": document["components"]}
    Draft202012Validator(schema).validate(answer)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("state=opne", "state: not one of open, decided, withdrawn (did you mean open?)"),
        ("why=sevre", "(did you mean severe?)"),
        ("polcy=spam", "unknown filter (did you mean policy?); use any of state, policy, why"),
        ("limit=0", "limit: not a number from 1 to 500"),
    ],
)
async def test_a_filter_that_the_api_does_not_know_is_refused(
    query: str, says: str, tmp_path: Path
) -> None:
    async with serving(tmp_path) as served:
        status, answer = await served.ask("GET", f"/v1/items?{query}")
        assert status == 400
        assert says in answer["error"]


async def test_a_reviewer_leases_decides_and_the_answers_are_as_described(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        status, listed = await served.ask("GET", "/v1/items?limit=3")
        assert (status, len(listed["items"])) == (200, 3)
        check(openapi(), "Items", listed)
        status, leased = await served.ask("POST", "/v1/leases", body={})
        assert status == 200
        check(openapi(), "Leased", leased)
        name = leased["lease"]["item_id"]
        status, shown = await served.ask("GET", f"/v1/items/{name}")
        check(openapi(), "ShownItem", shown)
        assert shown["text"] == "t"
        body = {"decision": "safe", "reason": "satire"}
        path = f"/v1/items/{name}/decision"
        assert (await served.ask("POST", path, "other", body))[0] == 409
        status, made = await served.ask("POST", path, body=body)
        assert status == 200
        check(openapi(), "Decision", made)
        assert [d.id for d in served.written] == [made["id"]]
        assert served.written[0].decided_by.id == "r-1"
        assert (await served.ask("POST", path, body=body))[0] == 409  # the lease has ended
        status, shown = await served.ask("GET", f"/v1/items/{name}")
        assert shown["state"] == "decided"
        status, audit = await served.ask("GET", f"/v1/audit?item_id={name}", "lead")
        check(openapi(), "Audit", audit)
        assert [entry["what"] for entry in audit["audit"]][:3] == ["show", "decide", "show"]


async def test_a_decision_that_the_broker_does_not_take_keeps_the_lease(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        name = served.names[0]
        await served.ask("POST", "/v1/leases", body={"item_id": name})
        served.broken = True
        path, body = f"/v1/items/{name}/decision", {"decision": "safe"}
        assert (await served.ask("POST", path, body=body))[0] == 503
        served.broken = False
        status, made = await served.ask("POST", path, body=body)
        assert (status, len(served.written)) == (200, 1)
        assert made["about"]["verdict_id"] == served.written[0].about.verdict_id  # type: ignore[union-attr]


async def test_each_request_of_a_known_person_is_in_the_audit_trail(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        name = served.names[0]
        path = f"/v1/items/{name}"
        asked = (
            ("GET", "/v1/items", "reviewer", None, 200),
            ("GET", path, "other", None, 200),
            ("GET", "/v1/items/nothing", "reviewer", None, 404),
            ("POST", "/v1/leases", "reviewer", {"item_id": name}, 200),
            ("DELETE", f"{path}/lease", "reviewer", None, 204),
            ("POST", "/v1/leases", "reviewer", {}, 200),
            ("POST", f"{path}/decision", "reviewer", {"decision": "safe"}, None),
            ("POST", f"{path}/decision", "read-only", {"decision": "safe"}, 403),
            ("GET", "/v1/stats", "read-only", None, 200),
            ("GET", "/v1/audit", "lead", None, 200),
        )
        for method, where, role, body, expected in asked:
            status, said = await served.ask(method, where, role, body)
            assert status == expected or expected is None, said
            if where == "/v1/leases" and body == {}:
                leased = said["lease"]["item_id"]
        for method, where in (("GET", "/metrics"), ("GET", "/livez"), ("GET", "/v1/nothing")):
            await served.ask(method, where)
        await served.ask("GET", "/v1/items", "z" * 32)
    found = [(e["what"], e["who"], e["role"], e["item_id"], e["allowed"]) for e in served.entries]
    assert found == [
        ("list", "r-1", "reviewer", None, True),
        ("show", "r-2", "reviewer", name, True),
        ("show", "r-1", "reviewer", "nothing", True),
        ("lease", "r-1", "reviewer", name, True),
        ("release", "r-1", "reviewer", name, True),
        ("lease", "r-1", "reviewer", leased, True),
        ("decide", "r-1", "reviewer", name, True),
        ("decide", "o-1", "read-only", name, False),
        ("stats", "o-1", "read-only", None, True),
        ("audit", "l-1", "lead", None, True),
    ]
    assert {entry["what"] for entry in served.entries} == set(WHAT)
    assert len({entry["id"] for entry in served.entries}) == len(served.entries)
    assert {entry["at"] for entry in served.entries} == {served.clock.wall_ns() // 1_000_000}


async def test_nothing_is_read_or_decided_without_an_entry(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        name = served.names[0]
        await served.ask("POST", "/v1/leases", body={"item_id": name})
        served.audit_broken = True
        status, said = await served.ask("GET", f"/v1/items/{name}")
        assert (status, said) == (503, {"error": "no broker"})
        path, body = f"/v1/items/{name}/decision", {"decision": "safe"}
        assert (await served.ask("POST", path, body=body))[0] == 503
        assert served.written == []
        served.audit_broken = False
        assert (await served.ask("POST", path, body=body))[0] == 200
        assert served.entries[-1]["what"] == "decide"
        assert served.entries[-1]["decided"] == 0


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: str(route[2]))
async def test_each_route_is_for_its_roles_alone(
    route: tuple[str, str, str, tuple[str, ...]], tmp_path: Path
) -> None:
    method, path, _, roles, *_ = route
    async with serving(tmp_path) as served:
        path = path.replace("{item_id}", served.names[0])
        assert (await served.ask(method, path, None))[0] == 401
        assert (await served.ask(method, path, "z" * 32))[0] == 401
        for role in ("reviewer", "lead", "read-only"):
            body = {} if method == "post" else None
            status, _ = await served.ask(method, path, role, body)
            assert (status != 403) == (role in roles), role
            assert status < 500


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b'{"decision": "maybe"}', 400),
        (b'{"decision": ["safe"]}', 400),
        (b'{"decision": "safe", "valid_until": "tomorrow"}', 400),
        (b'{"decision": "safe", "decision": "maybe"}', 400),
        (b'{"decision": "safe", "reason": "' + b"x" * 2_001 + b'"}', 400),
        (b'{"decision": "safe", "secret-field": 1}', 400),
        (b'{"decision": "violates"}', 422),
        (b" " * (BODY_BYTES_MAX + 1), 413),
    ],
)
async def test_a_body_that_cannot_be_used_is_refused(
    data: bytes, status: int, tmp_path: Path
) -> None:
    async with serving(tmp_path) as served:
        name = served.names[0]
        served.topics.item(9, decision="safe", sha256="1" * 64)
        apply(served.projection, served.topics.records)
        await served.ask("POST", "/v1/leases", body={"item_id": name})
        answered, said = await served.ask("POST", f"/v1/items/{name}/decision", data=data)
        if status == 422:  # the verdict's own action counts where it fits: decide on another
            safe = next(
                i["id"]
                for i in (await served.ask("GET", "/v1/items"))[1]["items"]
                if i["verdict"]["decision"] == "safe"
            )
            await served.ask("POST", "/v1/leases", body={"item_id": safe})
            answered, said = await served.ask("POST", f"/v1/items/{safe}/decision", data=data)
        assert answered == status
        assert list(said) == ["error"]
        assert "secret-field" not in said["error"]


async def test_queries_have_limits(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for query in ("limit=0", "limit=501", "limit=x", "limit=99999999999", "state=x"):
            assert (await served.ask("GET", f"/v1/items?{query}"))[0] == 400
        assert (await served.ask("GET", "/v1/nothing"))[0] == 404
        assert (await served.ask("GET", f"/v1/items/{'0' * 32}"))[0] == 404


async def test_the_figures_are_metrics_too(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        served.projection.note_decision(served.topics.decide(decision_about(0)))
        status, text = await served.ask("GET", "/metrics", "read-only")
        assert status == 200
        assert 'stream_guard_review_queue{state="decided"} 1.0' in text
        assert 'stream_guard_review_precision{bound="value",category="",policy="spam"} 0.0' in text
        # The figures follow a change: what is older than review.quality_days is left out.
        served.clock.advance(29 * 86_400)
        status, text = await served.ask("GET", "/metrics", "read-only")
        assert 'stream_guard_review_queue{state="decided"} 1.0' in text
        assert "stream_guard_review_precision{" not in text


@pytest.mark.parametrize(
    "text", ["", "reviewer r-1 short", f"admin a {'t' * 32}", f"reviewer {'t' * 32}"]
)
def test_a_file_of_tokens_that_is_wrong_is_refused_without_showing_a_token(
    text: str, tmp_path: Path
) -> None:
    (tmp_path / "tokens").write_text(text)
    with pytest.raises(SettingsError, match="tokens_file") as raised:
        Tokens(tmp_path / "tokens")
    assert "t" * 32 not in str(raised.value)


def test_a_token_names_a_person(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"lead l-1 {'t' * 32}\n")
    tokens = Tokens(tmp_path / "tokens")
    assert tokens.person(f"Bearer {'t' * 32}") == Person("l-1", "lead")
    for other in (None, "", "Bearer", f"Bearer {'t' * 33}", f"Basic {'t' * 32}", "Bearer \udcff"):
        assert tokens.person(other) is None
