"""The page Audit: who decided what, breakers, versions in force, the export, hostile texts, and what is away."""

from __future__ import annotations

import asyncio
import io
import zipfile
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from stream_guard.console.security.roles import Role
from stream_guard.console.sources.audit import Topic
from stream_guard.console.sources.audit_rows import Said
from stream_guard.console.sources.state import Health
from stream_guard.judging.archive.promotion import (
    Promotion,
    Version,
    promotions_prefix,
    write_promotion,
)
from stream_guard.offline.improve.versions import periods
from tests.audit_desk import auditing
from tests.decisions import make_decision
from tests.letters_desk import until
from tests.unit.console.policies_folder import PoliciesFolder
from tests.unit.offline.test_dsa import MAPPING, violating

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import ClientSession

    from tests.console import Answer, Visitor

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp; javascript:alert(1) "
    "\u202egnp.exe\u2066 \x1b[31m \u200b"
)
LONG = "<b>" + "x" * (1 << 20)
VIEWS = ("", "/breakers", "/versions")


def rows(page: Answer, caption: str) -> list[list[str]]:
    """Return the cells of a table by the id of its caption."""
    found = page.tree.xpath(f"//table[caption[@id='{caption}']]/tbody/tr")
    return [[" ".join(cell.text_content().split()) for cell in row] for row in found]


async def test_it_says_who_decided_what_and_who_asked_for_what() -> None:
    async with auditing() as desk, desk.console.visitor(Role.READ_ONLY) as visitor:
        desk.decide(make_decision())
        desk.decide(make_decision("breaker_reset", reason=None))
        desk.say("list", item_id=None)
        desk.say("decide", allowed=False)
        page = await visitor.get("/audit")
        first, second = rows(page, "decided")
        assert first[1:] == ["r-1 reviewer", "review", "safe", "spam", "p0", "none", "satire"]
        assert second[2:] == ["breaker_reset", "", "", "", "remove", ""]
        assert [row[2:] for row in rows(page, "said")] == [
            ["list", "", "yes"],
            ["decide", "i-1", "no"],
        ]
        assert "decisions: 2 were read. That is the whole topic." in page.words


async def test_it_says_what_it_did_not_read_and_what_is_not_there() -> None:
    async with auditing() as desk, desk.console.visitor(Role.READ_ONLY) as visitor:
        cut = Topic("decisions", there=True, left_out=1_234, foreign=5)
        desk.people = desk.people._replace(decisions=cut, trail=Topic(None))
        for _ in range(201):
            desk.decide(make_decision())
        desk.breakers = desk.breakers._replace(topic=Topic("breaker"))
        page = await visitor.get("/audit")
        assert "The latest 200 of 201 are shown." in page.words
        assert len(rows(page, "decided")) == 200
        assert "1,234 earlier offsets were not read" in page.words
        assert "5 records say nothing that Stream Guard knows" in page.words
        assert "kafka.audit_topic is not set" in page.words
        page = await visitor.get("/audit/breakers")
        assert "No breaker has ever counted here. There is no topic breaker" in page.words
        assert "The archive of policies is off" in (await visitor.get("/audit/versions")).words


async def test_breakers_that_opened_and_were_closed() -> None:
    async with auditing() as desk, desk.console.visitor(Role.READ_ONLY) as visitor:
        trip = {"generation": 0, "part": 1, "at_ms": 1, "cause": "actions_max"}
        counts = {"counted": 1_001, "allowed": 1_000}
        desk.trip(
            orjson.dumps(["trip", "hour", "spam", None, "remove"]), orjson.dumps(trip | counts)
        )
        desk.trip(
            orjson.dumps(["reset", "hour", "spam", None, "remove"]),
            orjson.dumps({"at_ms": 2, "trip_at_ms": 1}),
        )
        numbers = {"number": 1, "reserved": 1, "posts": 1}
        desk.trip(
            orjson.dumps(["count", "hour", None, None, None, 0, 1, "e"]), orjson.dumps(numbers)
        )
        opened, closed = rows(await visitor.get("/audit/breakers"), "tripped")
        assert opened[1:] == [
            "opened",
            "spam",
            "remove",
            "all",
            "hour",
            "actions_max",
            "1,001",
            "1,000",
        ]
        assert closed[1:6] == ["closed by a person", "spam", "remove", "all", "hour"]


@pytest.mark.parametrize("text", [HOSTILE, LONG])
async def test_text_of_strangers_is_escaped_and_cut(text: str, tmp_path: Path) -> None:
    folder = PoliciesFolder(tmp_path)
    promote(tmp_path, at_ms=1 << 62, by=text, reason=text, new=Version(text, "1" * 64))
    async with (
        auditing(folder.settings, dsa_mapping=tmp_path / "none.yaml") as desk,
        desk.console.visitor() as visitor,
    ):
        short = text[:40]
        by = {"id": text[:128], "role": "reviewer"}
        desk.decide(
            make_decision(
                decided_by=by,
                reason=text[:2_000],
                content={"id": text[:4_096], "author": text[:4_096]},
                policy={"id": text[:200], "version": text[:64]},
                outcome=make_decision().outcome.model_dump() | {"category": short, "action": short},  # type: ignore[union-attr]
            )
        )
        desk.say(text, who=text, role=text, item_id=text, at=-(1 << 62))
        trip = {
            "generation": 0,
            "part": 1,
            "at_ms": 1 << 62,
            "cause": text,
            "counted": 1,
            "allowed": 1,
        }
        names = [text, [text], {text: text}]
        desk.trip(orjson.dumps(["trip", "hour", *names]), orjson.dumps(trip))
        pages = [await visitor.get(f"/audit{view}") for view in VIEWS]
        pages.append(
            await visitor.post("/audit/export", {"first": text[:500_000], "last": text[:300_000]})
        )
        for page in pages:
            assert page.status in (200, 422), page.words[:500]
            tree = page.tree
            assert tree.xpath("//main//script | //main//img | //main//b[starts-with(., 'x')]") == []
            assert tree.xpath("//@*[starts-with(name(), 'on')]") == []
            assert [each for each in tree.xpath("//@href | //@action") if ":" in each] == []
            for hidden in ("\u202e", "\u2066", "\x1b", "\u200b"):
                assert hidden not in page.text
            assert len(page.text) < 3_000_000


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{",
        b"[]",
        b"7",
        b'{"who": 1}',
        b'{"at": "x", "who": "", "role": "", "what": "", "item_id": "", "allowed": true}',
    ],
)
def test_a_record_that_is_no_entry_of_the_trail(value: bytes | None) -> None:
    assert Said.of(value) is None


def promote(place: Path, **changes: Any) -> Promotion:  # noqa: ANN401 - of a record
    """Write a record into the archive of a :class:`PoliciesFolder`."""
    given: dict[str, Any] = {
        "kind": "promote",
        "policy_id": "touting",
        "at_ms": 1_000,
        "by": "author-1",
        "reason": "quotes are safe",
        "old": Version("1", "0" * 64),
        "new": Version("2", "1" * 64),
        "gates": (),
        "figures": {},
        "previous": None,
        "program": "1",
    }
    promotion = Promotion(**given | changes)
    key, content = write_promotion(promotion)
    file = place / "archive" / f"{key}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return promotion


async def test_versions_in_force_over_time_and_a_record_that_was_altered(tmp_path: Path) -> None:
    folder = PoliciesFolder(tmp_path)
    promote(tmp_path)
    promote(tmp_path, policy_id="gone")
    async with (
        auditing(folder.settings) as desk,
        desk.console.visitor(Role.READ_ONLY) as visitor,
    ):
        page = await visitor.get("/audit/versions")
        live, new, old = rows(page, "policy-2")
        assert live[0].startswith(folder.live.sha256[:12])
        assert live[1:4] == ["unknown", "in force", "edited by hand, without a record"]
        assert new == [
            "2 (111111111111)",
            "1970-01-01 00:00:01",
            "unknown",
            "promotion",
            "author-1",
            "quotes are safe",
        ]
        assert old[:4] == [
            "1 (000000000000)",
            "unknown",
            "1970-01-01 00:00:01",
            "before the first record",
        ]
        assert len(rows(page, "policy-1")) == 2
        [file] = (tmp_path / "archive" / promotions_prefix("gone")).glob("*.json")
        file.write_bytes(file.read_bytes().replace(b"author-1", b"author-2"))
    async with auditing(folder.settings) as desk, desk.console.visitor() as visitor:
        page = await visitor.get("/audit/versions")
        assert "was altered after it was archived" in page.words
        assert len(rows(page, "policy-2")) == 3


def test_periods_follow_each_other_and_an_edit_by_hand_is_one_without_a_time() -> None:
    one, two, three, four = (Version(str(n), str(n) * 64) for n in range(1, 5))

    def record(at_ms: int, old: Version, new: Version) -> Promotion:
        return Promotion("promote", "p", at_ms, "a", "r", old, new, (), {}, None, "1")

    found = periods([record(1, one, two), record(2, two, one), record(3, three, four)], four)
    assert [(each.version.version, each.from_ms, each.until_ms, each.how) for each in found] == [
        ("4", 3, None, "promote"),
        ("3", None, 3, "edit"),
        ("1", 2, None, "promote"),
        ("2", 1, 2, "promote"),
        ("1", None, 1, "first"),
    ]
    assert [each.live for each in found] == [True, False, False, False, False]
    assert periods([], None) == []
    [only] = periods([], one)
    assert (only.how, only.live) == ("first", True)


async def export(visitor: Visitor, **fields: str) -> tuple[int, dict[str, str], bytes]:
    """Send the form of the export; return status, headers and body."""
    days = {"first": "2023-11-14", "last": "2023-11-14"}
    sent = days | fields | {"csrf": await visitor.csrf()}
    session: ClientSession = visitor.session
    async with session.post(
        f"{visitor.url}/audit/export", data=sent, headers={"Origin": visitor.url}
    ) as answer:
        return answer.status, dict(answer.headers), await answer.read()


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    file = tmp_path / "dsa.yaml"
    file.write_text(MAPPING)
    return file


async def test_a_lead_downloads_statements_with_what_could_not_be_mapped(mapping: Path) -> None:
    async with auditing(dsa_mapping=mapping) as desk, desk.console.visitor() as visitor:
        desk.verdicts = [violating(), violating(id="other", policy__category="S9")]
        assert "At most 100,000 offsets" in (await visitor.get("/audit/export")).words
        status, headers, content = await export(visitor, last="2023-11-15")
        assert status == 200
        assert headers["Content-Type"] == "application/zip"
        assert (
            headers["Content-Disposition"] == 'attachment; filename="dsa-2023-11-14-2023-11-15.zip"'
        )
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            [statement] = archive.read("statements.jsonl").splitlines()
            [error] = archive.read("errors.jsonl").splitlines()
            summary = orjson.loads(archive.read("summary.json"))
        assert orjson.loads(statement)["puid"] == desk.verdicts[0]["id"]
        assert "no entry categories.S9" in orjson.loads(error)["error"]
        assert (summary["statements"], summary["errors"]) == (1, 1)
        [(first, last)] = desk.asked
        assert (first.time_ms, last.time_ms) == (1_699_920_000_000, 1_700_092_800_000)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"first": ""}, "the first day is no date"),
        ({"last": "9" * 5_000}, "the last day is no date"),
        ({"last": "2023-11-13"}, "the last day is before the first day"),
        ({"first": "0001-01-01"}, "out of range"),
        ({"last": "9999-12-31"}, "out of range"),
    ],
)
async def test_an_export_of_no_days_is_refused(
    mapping: Path, fields: dict[str, str], says: str
) -> None:
    async with auditing(dsa_mapping=mapping) as desk, desk.console.visitor() as visitor:
        answer = await visitor.post(
            "/audit/export", {"first": "2023-11-14", "last": "2023-11-14"} | fields
        )
        assert answer.status == 422
        assert says in answer.words
        assert desk.asked == []


async def test_only_a_lead_exports_one_at_a_time_and_only_with_a_mapping(mapping: Path) -> None:
    days = {"first": "2023-11-14", "last": "2023-11-14"}
    async with auditing(dsa_mapping=mapping) as desk:
        for role in (Role.READ_ONLY, Role.REVIEWER, Role.AUTHOR):
            async with desk.console.visitor(role) as visitor:
                assert "DSA export" not in (await visitor.get("/audit")).words
                assert (await visitor.get("/audit/export")).status == 403
                assert (await visitor.post("/audit/export", days)).status == 403
        async with desk.console.visitor() as lead:
            assert (await lead.post("/audit/export", days, csrf="x")).status == 403
            assert desk.asked == []
            desk.goes_on.clear()
            first = asyncio.create_task(export(lead))
            await until(lambda: bool(desk.asked))
            busy = await lead.post("/audit/export", days)
            assert "somebody else exports now" in busy.words
            desk.away = True
            desk.goes_on.set()
            status, _, body = await first
            assert status == 503
            assert b"no broker answers" in body
    async with auditing() as desk, desk.console.visitor() as lead:
        assert "console.dsa_mapping is not set" in (await lead.get("/audit/export")).words
        assert (await lead.post("/audit/export", days)).status == 422


async def test_what_is_away_is_named_and_comes_back_by_itself() -> None:
    async with auditing() as desk, desk.console.visitor(Role.READ_ONLY) as visitor:
        desk.away = True
        await visitor.get("/audit")
        source = desk.console.sources.audit.people
        await until(lambda: source.state.health is Health.AWAY)
        page = await visitor.get("/audit")
        assert page.status == 200
        assert "Decisions and audit trail: cannot be read since" in page.words
        assert "This cannot be read now" in page.words
        desk.away = False
        await until(lambda: source.state.health is Health.FRESH)
        desk.say()
        part = await visitor.event("audit.people", enough="i-1")
        assert "i-1" in part["audit.people"]
        assert "audit trail: cannot be read since" not in (await visitor.get("/audit")).words
