"""The page Now: figures, the cascade as a picture, faults in plain words, and what is away."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from stream_guard.console.pages.now.cascade import draw
from stream_guard.console.security.roles import Role
from stream_guard.console.sources.board import ROWS_MAX, Board, TierShare
from stream_guard.console.sources.faults import RULES, SHOWN_MAX, Faults
from stream_guard.console.sources.replicas import Replica, Replicas
from stream_guard.settings import ConsoleSettings
from stream_guard.telemetry.metrics_page import Figure
from stream_guard.testing import ManualClock
from tests.console import Metrics, served

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[3]
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>javascript:alert(1)\u202e"
READY = 'stream_guard_build_info{version="1",model="demo-model",engine="vllm"} 1\n'
VERDICTS = (
    'stream_guard_verdicts_total{policy="spam",decision="safe",tier="rules",mode="live"} 30\n'
    'stream_guard_verdicts_total{policy="spam",decision="violates",tier="safeguard",mode="live"} 10\n'
    'stream_guard_verdicts_total{policy="new",decision="safe",tier="safeguard",mode="shadow"} 99\n'
)
BUSY = (
    READY
    + VERDICTS
    + 'stream_guard_lag_records{topic="posts",partition="0"} 7\n'
    + 'stream_guard_oldest_unjudged_age_seconds{topic="posts",partition="0"} 12.5\n'
    + 'stream_guard_oldest_unjudged_age_seconds{topic="posts",partition="1"} 2\n'
    + "stream_guard_in_flight_records 5\n"
    + "stream_guard_pressure_level 1\n"
    + 'stream_guard_engine_rebuilds_total{cause="died"} 2\n'
    + 'stream_guard_dead_letters_total{reason="encoding"} 3\n'
    + 'stream_guard_breaker_open{policy="spam",action="remove",window="hour"} 1\n'
    + 'stream_guard_breaker_open{policy="spam",action="ban",window="hour"} 0\n'
    + 'stream_guard_lane_in_flight_records{lane="urgent"} 4\n'
    + 'stream_guard_lane_full{lane="urgent"} 1\n'
    + 'stream_guard_tenant_tokens_per_second{lane="urgent",tenant="acme"} 77\n'
)


class Service:
    """Replicas whose readings a test gives, at times that a test gives."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.replicas = Replicas(ConsoleSettings(metrics_urls=[]), self.clock)
        self.faults = Faults(self.replicas, self.clock)
        self.board = Board(self.replicas)
        self.replica = Replica("http://guard-0/metrics", 0)
        self.replicas.all = {self.replica.address: self.replica}

    def reads(self, seconds: float = 1.0, **values: float | Mapping[str, float]) -> list[str]:
        """Read the replica once more, and return the names of the faults that last."""
        self.clock.advance(seconds)
        figures = [Figure("stream_guard_build_info", (("model", "m"),), 1.0)]
        for name, value in values.items():
            series = value if isinstance(value, dict) else {"": value}
            for labels, each in series.items():
                pairs = tuple(tuple(pair.split("=")) for pair in labels.split(",") if pair)
                figures.append(Figure(f"stream_guard_{name}", pairs, each))  # type: ignore[arg-type]
        self.replica.note(self.clock.monotonic_s(), self.clock.wall_ns() // 1_000_000, figures)
        self.faults.look()
        self.replicas.turn += 1
        return [fault.rule.name for fault in self.faults.lasting]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_fault_has_an_alert_of_the_chart_and_a_guide_that_exists(rule: Any) -> None:  # noqa: ANN401 - a Rule
    file = ROOT / "helm" / "stream-guard" / "rules" / "stream-guard.yaml"
    groups = yaml.safe_load(file.read_text("utf-8"))["groups"]
    assert rule.alert in {each["alert"] for group in groups for each in group["rules"]}
    name, _, anchor = rule.guide.partition("#")
    text = (ROOT / "docs" / f"{name}.md").read_text("utf-8")
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings}
    assert not anchor or anchor in anchors


def test_a_fault_counts_once_it_has_lasted_and_says_since_when() -> None:
    service = Service()
    began_ms = service.clock.wall_ns() // 1_000_000 + 1_000
    age = {"topic=posts,partition=0": 901.0}
    assert service.reads(oldest_unjudged_age_seconds=age) == []
    assert service.reads(29, oldest_unjudged_age_seconds=age) == []
    assert service.reads(1, oldest_unjudged_age_seconds=age | {"topic=b": 5.0}) == ["behind"]
    [fault] = service.faults.lasting
    assert (fault.since_ms, dict(fault.values)) == (began_ms, {"topic": "posts", "seconds": "901"})
    assert service.reads(oldest_unjudged_age_seconds={"topic=posts,partition=0": 1.0}) == []


def test_what_happens_and_is_over_at_once_is_shown_for_ten_minutes() -> None:
    service = Service()
    assert service.reads(engine_rebuilds_total={"cause=died": 1.0}) == []
    assert service.reads(engine_rebuilds_total={"cause=died": 2.0}) == ["rebuilt"]
    assert service.reads(500, engine_rebuilds_total={"cause=died": 2.0}) == ["rebuilt"]
    assert service.reads(120, engine_rebuilds_total={"cause=died": 2.0}) == []


def test_work_that_waits_while_nothing_is_published_is_no_progress() -> None:
    service = Service()
    verdicts = {"decision=safe": 5.0}
    waiting = {"topic=t,partition=0": 9.0}
    for _ in range(3):
        assert service.reads(10, lag_records=waiting, verdicts_total=verdicts) == []
    assert service.reads(10, lag_records=waiting, verdicts_total=verdicts) == ["no_progress"]
    moved = {"decision=safe": 6.0}
    assert service.reads(1, lag_records=waiting, verdicts_total=moved) == []


def test_a_share_of_dead_letters_is_a_fault_and_a_few_are_none() -> None:
    service = Service()
    for number in range(8):
        few = {"reason=json": float(number)}
        assert service.reads(10, dead_letters_total=few, records_total=100.0 * number) == []
    for number in range(8):
        many = {"reason=json": 8.0 + 10.0 * number}
        found = service.reads(10, dead_letters_total=many, records_total=800.0 + 100.0 * number)
    assert found == ["dead_letters"]
    assert service.faults.lasting[0].values["share"] == "10%"


def test_faults_and_rows_have_a_limit() -> None:
    service = Service()
    breakers = {f"policy=p{number},action=a,window=hour": 1.0 for number in range(60)}
    verdicts = {f"policy=p{number},decision=safe,tier=rules,mode=live": 1.0 for number in range(60)}
    assert len(service.reads(breaker_open=breakers, verdicts_total=verdicts)) == SHOWN_MAX
    figures = service.board.figures()
    assert (len(figures.policies), figures.policies_more) == (ROWS_MAX, 60 - ROWS_MAX)
    assert len(figures.breakers) == ROWS_MAX
    assert service.board.figures() is figures
    service.reads()
    assert service.board.figures() is not figures


def test_the_shares_of_the_cascade_are_those_of_now_and_shadows_do_not_count() -> None:
    service = Service()
    model, rules, shadow = (
        "policy=p,decision=safe,tier=safeguard,mode=live",
        "policy=p,decision=safe,tier=rules,mode=live",
        "policy=p,decision=safe,tier=safeguard,mode=shadow",
    )
    service.reads(verdicts_total={model: 90.0, rules: 10.0, shadow: 1_000.0})
    ever = service.board.figures()
    assert [each[:2] for each in ever.tiers] == [("rules", 0.1), ("safeguard", 0.9)]
    assert not ever.tiers_now
    service.reads(10, verdicts_total={model: 100.0, rules: 40.0, shadow: 2_000.0})
    now = service.board.figures()
    assert now.tiers_now
    assert now.tiers == [TierShare("rules", 0.75, 3.0), TierShare("safeguard", 0.25, 1.0)]


def test_the_picture_takes_out_what_each_tier_settles_and_leaves_nothing_behind() -> None:
    assert draw([]) is None
    picture = draw([TierShare("rules", 1 / 3, 1), TierShare("none", 0, 0), TierShare("m", 0.66, 2)])
    assert picture is not None
    first, nothing, last = picture.settled
    assert nothing.path == ""
    assert first.passes
    assert last.passes == ""
    assert last.path


async def test_the_page_shows_lag_engines_breakers_dead_letters_lanes_and_tenants() -> None:
    async with (
        Metrics(BUSY) as replica,
        served(metrics_urls=[replica.url]) as console,
        console.visitor(Role.READ_ONLY) as visitor,
    ):
        await visitor.event("now.figures", enough="acme")
        page = await visitor.get("/now")
    rows = [
        " ".join(" ".join(cell.text_content() for cell in row).split())
        for row in page.tree.xpath("//tr")
    ]
    for words in ("posts 0 7 12.5", "encoding 0.0 3", "urgent full 4", "urgent acme 77"):
        assert any(row.startswith(words) for row in rows), (words, rows)
    for words in ("rules 75.0%", "spam safeguard 0.0 0.0 0.0 10", "new (shadow) safeguard"):
        assert any(row.startswith(words) for row in rows), (words, rows)
    [replica_row] = [row for row in rows if "demo-model vllm 1" in row]
    assert "ready" in replica_row
    assert replica_row.endswith("5 2 effort is lowered")
    assert "The limit on the action remove under spam (hour) was reached" in page.words
    assert "action ban" not in page.words
    [picture] = page.tree.xpath("//svg[@role='img']")
    assert "rules: 75.0%. safeguard: 25.0%." in picture.get("aria-label")
    assert page.tree.xpath("//*[@style] | //style | //script[not(@src)]") == []


async def test_names_of_others_are_escaped_and_cannot_turn_the_page_around() -> None:
    def named(name: str) -> str:
        return BUSY.replace('"spam"', f'"{name}"').replace('"acme"', f'"{name}"')

    text = named(HOSTILE) + named("y" * 1_000_000)
    text += f'stream_guard_lane_full{{lane="{HOSTILE}"}} 1\n'
    async with (
        Metrics(text) as replica,
        served(metrics_urls=[replica.url]) as console,
        console.visitor(Role.READ_ONLY) as visitor,
    ):
        await visitor.event("now.figures", enough="yyyy")
        page = await visitor.get("/now")
    assert "&lt;script&gt;alert(1)" in page.text
    assert page.tree.xpath("//img | //script[not(@src)] | //a[contains(@href, 'javascript')]") == []
    assert "\u202e" not in page.text
    assert len(page.text) < 100_000


async def test_faults_lead_to_the_guide_and_name_the_alert() -> None:
    text = BUSY.replace(READY, "")
    async with Metrics(text) as replica:
        async with (
            served(metrics_urls=[replica.url], guide_url="https://docs.example/g/") as console,
            console.visitor(Role.READ_ONLY) as visitor,
        ):
            shown = (await visitor.event("now.faults", enough="warm model"))["now.faults"]
            assert "A limit on actions was reached (hour): action remove" in shown
            assert 'href="https://docs.example/g/guides/action-limits#when-it-opens"' in shown
            assert "(StreamGuardBreakerOpen)" in shown
        async with served(metrics_urls=[replica.url]) as console, console.visitor() as visitor:
            shown = (await visitor.event("now.faults", enough="warm model"))["now.faults"]
            assert "href" not in shown
            assert "The guide is guides/action-limits#when-it-opens" in shown


async def test_a_replica_that_goes_away_is_named_with_its_time_and_comes_back() -> None:
    async with (
        Metrics(READY) as one,
        Metrics(READY) as other,
        served(metrics_urls=[one.url, other.url]) as console,
        console.visitor(Role.READ_ONLY) as visitor,
    ):
        await visitor.event("now.faults", enough="Nothing is wrong")
        await other.go()
        await visitor.event("now.faults", enough=f"The replica {other.url} does not answer")
        rows = (await visitor.get("/now")).tree.xpath("//tr[td[@class='fault']]")
        assert [row.xpath("string(th)") for row in rows] == [other.url]
        assert rows[0].xpath(".//time")
        await other.come()
        await visitor.event("now.faults", enough="Nothing is wrong")


async def test_before_the_first_reading_the_page_does_not_say_that_all_is_well() -> None:
    async with served() as console, console.visitor(Role.READ_ONLY) as visitor:
        assert "No metrics of the service have been read yet" in (await visitor.get("/now")).words
