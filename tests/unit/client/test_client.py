"""The client of verdicts: reading, the window, what is wanted; without a broker."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import enforcement, review_queue
from stream_guard.client import (
    ClientError,
    UnreadableVerdictError,
    Verdict,
    VerdictConsumer,
    Window,
    parse_verdict,
)
from stream_guard.client.filters import Wanted
from stream_guard.records.verdict_event import encode_verdict
from tests.verdicts import make_verdict

if TYPE_CHECKING:
    from collections.abc import Iterator


def read(**changes: Any) -> Verdict:  # noqa: ANN401
    return parse_verdict(json.dumps(make_verdict(**changes)).encode())


def test_what_the_product_publishes_can_be_read() -> None:
    made = make_verdict(decision="violates", category="S1", severity="high")
    verdict = parse_verdict(encode_verdict(made))
    assert verdict.id == made["id"]
    assert verdict.subject == ("posts", 0, 0, "spam")
    assert verdict.policy.severity == "high"
    assert verdict.provenance.tier == made["provenance"]["tier"]
    assert verdict.timing.model_dump() == made["timing"]


def test_a_verdict_of_an_older_version_says_nothing_of_a_cut() -> None:
    made = make_verdict()
    made["provenance"]["reasoning_cut"] = True
    assert parse_verdict(encode_verdict(made)).provenance.reasoning_cut
    del made["provenance"]["reasoning_cut"]
    assert not parse_verdict(encode_verdict(made)).provenance.reasoning_cut


def test_fields_of_a_later_minor_version_are_passed_over() -> None:
    made = make_verdict() | {"schema_version": "1.7", "novelty": {"a": 1}}
    assert parse_verdict(encode_verdict(made)).schema_version == "1.7"


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (None, "tombstone"),
        (b"{", "not a verdict"),
        (b"{}", "schema_version"),
        (encode_verdict(make_verdict() | {"schema_version": "2.0"}), "upgrade stream-guard"),
        (encode_verdict(make_verdict() | {"decision": "maybe"}), "decision"),
    ],
)
def test_what_is_no_verdict_is_refused_with_its_place(value: bytes | None, what: str) -> None:
    with pytest.raises(UnreadableVerdictError, match="verdicts/3/7: ") as caught:
        parse_verdict(value, "verdicts/3/7")
    assert what in str(caught.value)


def test_a_refusal_does_not_quote_the_value() -> None:
    value = encode_verdict(make_verdict() | {"decision": "planted-secret"})
    with pytest.raises(UnreadableVerdictError) as caught:
        parse_verdict(value)
    assert "planted-secret" not in str(caught.value)


def test_a_window_knows_repeats_and_forgets_the_oldest() -> None:
    window = Window(2)
    one, two, three = (read(offset=n) for n in range(3))
    for verdict in (one, two, three):
        window.remember(verdict)
    assert [window.is_repeat(v) for v in (one, two, three)] == [False, True, True]


def test_a_later_version_supersedes_the_earlier_and_never_the_other_way_round() -> None:
    window = Window(10)
    old, new = read(sha256="a" * 64, published_ms=1), read(sha256="b" * 64, published_ms=2)
    assert window.remember(old) is None
    assert window.remember(new) == old.id
    assert window.remember(read(sha256="c" * 64, published_ms=0)) is None
    assert window.remember(read(offset=9)) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abc")), max_size=60))
def test_a_window_is_bounded_and_right_about_what_it_holds(seen: list[tuple[int, str]]) -> None:
    window, order = Window(4), []
    for offset, version in seen:
        verdict = read(offset=offset, sha256=version * 64)
        if window.is_repeat(verdict):
            assert verdict.id in order
            continue
        assert verdict.id not in order[-4:]
        window.remember(verdict)
        order.append(verdict.id)
        assert len(window) <= 4


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"window_size_max": 0}, "window_size_max"),
        ({"decisions": ["maybe"]}, "decisions: unknown 'maybe'; use any of safe, undetermined, v"),
        ({"decisions": ["violate"]}, r"did you mean violates\?"),
        ({"severity_min": "hihg"}, r"'hihg' \(did you mean high\?\); use one of low, medium"),
        ({"decisions": "violates"}, "lists"),
        ({"severity_min": "huge"}, "severity_min"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(ClientError, match=what):
        VerdictConsumer("localhost:1", group_id="g", **arguments)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"decision": "safe"}, False),
        ({"decision": "undetermined"}, True),
        ({"decision": "violates", "category": "S1", "severity": "low"}, False),
        ({"decision": "violates", "category": "S1", "severity": "high"}, True),
        ({"decision": "violates", "category": "S1", "severity": "critical"}, True),
        ({"decision": "violates"}, True),  # nobody said how grave: not known is not harmless
    ],
)
def test_a_least_severity_leaves_out_only_what_is_known_to_be_less(
    *, changes: dict[str, Any], wanted: bool
) -> None:
    assert Wanted(severity_min="high").wants(read(**changes)) is wanted


def test_shadows_are_left_out_unless_asked_for() -> None:
    shadow = read(route_mode="shadow")
    assert not Wanted().wants(shadow)
    assert Wanted(shadows=True).wants(shadow)


def test_the_client_brings_neither_engine_nor_model() -> None:
    program = (
        "import sys, stream_guard.client; "
        "print([m for m in ('vllm', 'torch', 'onnxruntime', 'opentelemetry.sdk') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# The examples


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.executescript(enforcement.SCHEMA + review_queue.SCHEMA)
    yield connection
    connection.close()


def test_enforcement_acts_once_per_verdict(database: sqlite3.Connection) -> None:
    verdict = read(decision="violates")
    assert [enforcement.handle(database, verdict) for _ in range(3)] == [True, False, False]
    assert database.execute("SELECT count(*) FROM actions").fetchone() == (1,)


def test_a_failed_action_leaves_no_mark(
    database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("down")

    verdict = read(decision="violates")
    with monkeypatch.context() as patched:
        patched.setattr(enforcement, "act", fail)
        with pytest.raises(OSError, match="down"):
            enforcement.handle(database, verdict)
    assert enforcement.handle(database, verdict)
    assert database.execute("SELECT count(*) FROM actions").fetchone() == (1,)


def cases(database: sqlite3.Connection) -> list[tuple[str, str]]:
    return database.execute("SELECT verdict_id, state FROM cases").fetchall()


def test_a_case_follows_the_newest_verdict_until_a_person_closes_it(
    database: sqlite3.Connection,
) -> None:
    first = read(decision="undetermined", sha256="a" * 64, published_ms=1)
    second = read(decision="undetermined", sha256="b" * 64, published_ms=2)
    settled = read(decision="safe", sha256="c" * 64, published_ms=3)
    review_queue.feed(database, first)
    review_queue.feed(database, second)
    review_queue.feed(database, first)  # a repeat that comes late changes nothing
    assert cases(database) == [(second.id, "open")]
    review_queue.feed(database, settled)
    assert cases(database) == [(settled.id, "superseded")]


def test_a_closed_case_stays_closed(database: sqlite3.Connection) -> None:
    review_queue.feed(database, read(decision="undetermined", sha256="a" * 64, published_ms=1))
    database.execute("UPDATE cases SET state = 'closed'")
    review_queue.feed(database, read(decision="violates", sha256="b" * 64, published_ms=2))
    assert cases(database)[0][1] == "closed"
