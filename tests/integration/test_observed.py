"""What a real run tells of itself: spans over the wire, metrics, log lines.

Each agrees with what was sent, and none holds a word of it.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.harness import HANG_S, ROOT, deploy, owed_of, read, running, until
from tests.integration.otlp import Receiver, Span, receiving

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stream_guard.testing import Broker

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
POSTS = 9
"""Good ones; the first of them is sampled by its sender."""


def secret(place: str) -> str:
    """Return a word that stands nowhere else."""
    return f"sekrit{place}qx7"


def good(number: int) -> bytes:
    return orjson.dumps(
        {
            "id": f"p{number}",
            "text": f"{secret('text')} and nothing much {number}",
            "title": secret("title"),
            "author": secret("author"),
            "parent": secret("parent"),
        }
    )


BAD = {
    "json": secret("nojson").encode(),
    "missing_field": orjson.dumps({"id": "b1", "title": secret("missing")}),
    "field_type": orjson.dumps({"id": "b2", "text": [secret("type")]}),
    "encoding": secret("encoding").encode() + b"\xff",
    "tombstone": None,
}

OVER = (
    "lag_records",
    "in_flight_records",
    "oldest_unjudged_age_seconds",
    "head_of_line_age_seconds",
)
"""What is 0 once all is judged and committed."""


@dataclass
class Observed:
    """One run, when it is over."""

    posts: str
    verdict_topic: str
    receiver: Receiver
    log: str = ""
    metrics: str = ""
    health: str = ""
    records: list[Any] = field(default_factory=list)

    @property
    def verdicts(self) -> list[Any]:
        return [r for r in self.records if r.topic == self.verdict_topic]

    def families(self) -> dict[str, Any]:
        return {family.name: family for family in text_string_to_metric_families(self.metrics)}

    def value(self, sample: str, **labels: str) -> float:
        """Return the sum over the samples of this name that bear these labels."""
        found = self.samples(sample, **labels)
        assert found, f"no {sample} {labels}"
        return float(sum(found))

    def samples(self, sample: str, **labels: str) -> list[float]:
        """Return the values of the samples of this name that bear these labels; none before the first is shown."""
        return [
            one.value
            for family in self.families().values()
            for one in family.samples
            if one.name == sample and labels.items() <= one.labels.items()
        ]


async def send(bootstrap: str, topic: str) -> None:
    """Send good and bad records by a plain producer, which traces one of them."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    key, other = secret("key").encode(), ("x-user", secret("header").encode())
    try:
        for number in range(POSTS):
            headers = [other]
            if number == 0:
                headers.append(("traceparent", f"00-{TRACE}-{PARENT}-01".encode()))
            await producer.send_and_wait(topic, good(number), key=key, headers=headers)
        for value in BAD.values():
            await producer.send_and_wait(topic, value, key=key, headers=[other])
    finally:
        await producer.stop()


def fetch(port: int, page: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=HANG_S) as answer:
        body: str = answer.read().decode()
        return body


@pytest.fixture(scope="module")
def observed(
    broker: Broker, random_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Observed:
    """One run for all tests here: the engine takes its time to start."""
    folder = tmp_path_factory.mktemp("observed")
    return asyncio.run(observe(broker, random_model, folder))


async def observe(broker: Broker, model: Path, folder: Path) -> Observed:
    names = iter(range(9))

    def new_topic(prefix: str) -> str:
        name = f"{prefix}-observed-{next(names)}"
        broker.create_topics(name, partitions=2)
        return name

    shutil.copytree(ROOT / "policies", folder / "policies")
    with receiving() as receiver:
        place = deploy(
            broker.bootstrap_servers,
            new_topic,
            STREAM_GUARD_POLICIES__PATH=str(folder / "policies"),
            STREAM_GUARD_ENGINE__KIND="vllm",
            STREAM_GUARD_ENGINE__MODEL=str(model),
            # Random weights write no answer by themselves: an attempt without the grammar would only take time.
            STREAM_GUARD_ENGINE__CONSTRAINT="always",
            STREAM_GUARD_ENGINE__MAX_NUM_SEQS="16",
            STREAM_GUARD_ENGINE__REASONING_TOKENS_MAX="16",
            STREAM_GUARD_ENGINE__RATIONALE_TOKENS_MAX="16",
            STREAM_GUARD_CASCADE__LADDER="[]",
            STREAM_GUARD_TELEMETRY__OTLP_ENDPOINT=f"http://127.0.0.1:{receiver.port}",
            STREAM_GUARD_TELEMETRY__TRACE_RATIO="0",
            STREAM_GUARD_TELEMETRY__LOG_LEVEL="debug",
            OMP_NUM_THREADS="1",
            VLLM_CPU_OMP_THREADS_BIND="nobind",
        )
        seen = Observed(place.posts, place.verdicts, receiver)
        owed = 2 * POSTS + len(BAD)
        with running(place, folder / "log") as run:
            port = run.wait_for("ready")["http_port"]
            await send(place.bootstrap, place.posts)
            topics = [place.verdicts, place.dead]
            seen.records = await read(
                place.bootstrap, topics, lambda got: len(owed_of(got)) >= owed
            )
            # An edit of a policy that is refused: the last good set stays live.
            (folder / "policies" / "routes.yaml").write_text("nonsense: [")
            run.wait_for("policies_refused")

            def settled() -> bool:
                # These are looked at from time to time, not all at once: each may be the last to know.
                seen.metrics = fetch(port, "metrics")
                shown = [seen.samples(f"stream_guard_{gauge}") for gauge in OVER]
                over = all(values and not any(values) for values in shown)
                # Positions are committed on an interval, which may be longer than all the rest took.
                return over and seen.value("stream_guard_commits_total", outcome="ok") >= 1

            await until(settled)
            seen.health = fetch(port, "healthz")
            assert run.end() == 0, run.tail()
        seen.log = (folder / "log").read_text("utf-8", "replace")
    return seen


# Traces


def the(spans: Sequence[Span]) -> Span:
    (span,) = spans
    return span


def test_one_trace_leads_from_the_producer_to_the_verdicts_header(observed: Observed) -> None:
    receiver = observed.receiver
    process = the(receiver.named("process ", TRACE))
    assert process.name == f"process {observed.posts}"
    assert process.parent_id == PARENT
    assert process.service == "stream-guard"
    assert process.kind == 5  # consumer
    judges = receiver.named("judge", TRACE)
    sends = receiver.named("send ", TRACE)
    assert len(judges) == len(sends) == 2
    assert {span.parent_id for span in (*judges, *sends)} == {process.span_id}
    assert {span.kind for span in sends} == {4}  # producer
    sent = {
        dict(record.headers)["traceparent"].decode().split("-")[2]
        for record in observed.verdicts
        if TRACE.encode() in dict(record.headers)["traceparent"]
    }
    assert sent == {span.span_id for span in sends}
    for span in (*judges, *sends):
        assert process.start_ns <= span.start_ns <= span.end_ns <= process.end_ns


def test_the_engines_call_and_vllms_own_span_hang_under_ours(observed: Observed) -> None:
    receiver = observed.receiver
    judges = {span.span_id: span for span in receiver.named("judge", TRACE)}
    calls = receiver.named("chat ", TRACE)
    assert {call.parent_id for call in calls} == judges.keys()
    by_policy = {
        verdict["policy"]["id"]: verdict["provenance"]
        for record in observed.verdicts
        if TRACE.encode() in dict(record.headers)["traceparent"]
        for verdict in [orjson.loads(record.value)]
    }
    for judge_id, judge in judges.items():
        provenance = by_policy[judge.attributes["stream_guard.policy.id"]]
        mine = [call for call in calls if call.parent_id == judge_id]
        assert len(mine) == provenance["attempts"]
        for name, field_name in (
            ("gen_ai.usage.input_tokens", "prompt_tokens"),
            ("gen_ai.usage.cache_read.input_tokens", "cached_tokens"),
            ("gen_ai.usage.output_tokens", "output_tokens"),
        ):
            assert sum(call.attributes[name] for call in mine) == provenance[field_name]
        last = max(mine, key=lambda call: call.start_ns)
        assert last.attributes["gen_ai.response.finish_reasons"] == [provenance["finish_reason"]]
        assert last.attributes["gen_ai.request.model"] == provenance["model"]
        assert last.attributes["gen_ai.operation.name"] == "chat"
    own = receiver.named("llm_request", TRACE)
    assert {span.parent_id for span in own} == {call.span_id for call in calls}
    assert {span.service for span in own} == {"stream-guard"}


def test_the_engine_makes_no_traces_of_its_own(observed: Observed) -> None:
    assert {span.trace_id for span in observed.receiver.named("llm_request")} == {TRACE}


def test_polls_and_batches_are_linked_with_the_record(observed: Observed) -> None:
    receiver = observed.receiver
    process = the(receiver.named("process ", TRACE))
    receive = the([s for s in receiver.named("receive ") if (TRACE, PARENT) in s.links])
    assert set(process.links) == {(TRACE, PARENT), receive.place}
    assert receive.parent_id == ""
    for judge in receiver.named("judge", TRACE):
        batch = the([s for s in receiver.named("batch ") if judge.place in s.links])
        assert judge.links == [batch.place]


def test_every_dead_letter_is_traced_though_nobody_sampled_it(observed: Observed) -> None:
    kept = [
        span
        for span in observed.receiver.named("process ")
        if span.attributes.get("stream_guard.kept") == "dead_letter"
    ]
    assert Counter(span.attributes["error.type"] for span in kept) == Counter(list(BAD))
    assert all(span.error for span in kept)


# Metrics


def documented() -> list[str]:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text("utf-8")
    return re.findall(r"^\| `(stream_guard_\w+)` \|", page, re.MULTILINE)


def test_every_documented_metric_is_scraped_and_no_other(observed: Observed) -> None:
    there = {
        name + ("_total" if family.type == "counter" else "")
        for name, family in observed.families().items()
        if name.startswith("stream_guard_") and not name.endswith("_created")
    }
    assert there == set(documented())
    assert len(there) >= 30


def test_the_engines_own_metrics_are_on_the_same_page(observed: Observed) -> None:
    assert observed.value("vllm:prompt_tokens_total") >= observed.value(
        "stream_guard_tokens_total", kind="prompt"
    )


def test_values_agree_with_what_was_sent(observed: Observed) -> None:
    value, records = observed.value, POSTS + len(BAD)
    verdicts = [orjson.loads(record.value) for record in observed.verdicts]
    assert value("stream_guard_records_total", topic=observed.posts) == records
    assert value("stream_guard_verdicts_total") == len(verdicts) == 2 * POSTS
    made = Counter(
        (v["policy"]["id"], v["decision"], v["provenance"]["tier"], "live") for v in verdicts
    )
    names = ("policy", "decision", "tier", "mode")
    for labels, count in made.items():
        shown = value("stream_guard_verdicts_total", **dict(zip(names, labels, strict=True)))
        assert shown == count
    for reason in BAD:
        assert value("stream_guard_dead_letters_total", reason=reason) == 1
    assert value("stream_guard_dead_letters_total") == len(BAD)
    for kind, field_name in (("prompt", "prompt"), ("cached", "cached"), ("output", "output")):
        spent = sum(v["provenance"][f"{field_name}_tokens"] for v in verdicts)
        assert value("stream_guard_tokens_total", kind=kind) == spent
    assert value("stream_guard_batch_posts_sum") == 2 * POSTS
    assert value("stream_guard_tier_posts_total", tier="safeguard") == 2 * POSTS


def test_stages_are_timed_once_for_each_verdict(observed: Observed) -> None:
    value, owed = observed.value, 2 * POSTS + len(BAD)
    counts = {
        stage: value("stream_guard_stage_seconds_count", stage=stage)
        for stage in ("wait", "judge", "publish")
    }
    assert counts == {"wait": 2 * POSTS, "judge": 2 * POSTS, "publish": owed}
    assert value("stream_guard_process_seconds_count") == owed
    parts = sum(
        value("stream_guard_stage_seconds_sum", stage=s) for s in ("wait", "judge", "publish")
    )
    assert 0 < parts <= value("stream_guard_process_seconds_sum") * 1.01
    assert value("stream_guard_event_loop_lag_seconds_count") > 0


def test_what_is_over_is_shown_as_over(observed: Observed) -> None:
    value = observed.value
    for gauge in OVER:
        assert value(f"stream_guard_{gauge}") == 0, gauge
    assert value("stream_guard_assigned_partitions") == 2
    assert value("stream_guard_rebalances_total") == 1
    assert value("stream_guard_commits_total", outcome="ok") >= 1
    assert value("stream_guard_policy_reloads_total", outcome="refused") == 1
    for quiet in (
        "engine_rebuilds",
        "producer_rebuilds",
        "abandoned_records",
        "degraded_verdicts",
        "pressure_changes",
        "repeats",
        "transactions",
        "dead_letter_limit_stops",
    ):
        samples = observed.families()[f"stream_guard_{quiet}"].samples
        assert all(one.value == 0 for one in samples if one.name.endswith("_total")), quiet
    assert value("stream_guard_build_info", engine="vllm") == 1


def test_traces_are_counted_by_why(observed: Observed) -> None:
    spans = observed.receiver.named("process ")
    kept = Counter(span.attributes.get("stream_guard.kept", "parent") for span in spans)
    assert kept["parent"] == 1
    for why in ("parent", "undetermined", "severe", "dead_letter", "slow", "ratio", "refused"):
        assert observed.value("stream_guard_traces_total", why=why) == kept[why]


def test_labels_come_from_bounded_sets(observed: Observed) -> None:
    policies = {path.parent.name for path in (ROOT / "policies").glob("*/policy.md")}
    bounded = {
        "topic": {observed.posts},
        "partition": {"0", "1"},
        "policy": policies,
        "decision": {"violates", "safe", "undetermined"},
        "tier": {"duplicates", "rules", "classifier", "safeguard", "none"},
        "mode": {"live", "canary", "shadow"},
        "stage": {"parse", "judge", "wait", "publish"},
    }
    for name, family in observed.families().items():
        if not name.startswith("stream_guard_"):
            continue
        assert len(family.samples) <= 120, name
        for sample in family.samples:
            for label, value in sample.labels.items():
                assert value in bounded.get(label, {value}), f"{name}: {label}={value}"
                assert len(value) < 200, name


# Logs


def test_every_line_is_json_and_names_a_trace(observed: Observed) -> None:
    # The one other process that writes there is Python's own, which looks after vLLM's semaphores.
    written = [line for line in observed.log.splitlines() if line.strip()]
    lines = [
        orjson.loads(line) for line in written if "resource_tracker" not in line and line[0] != " "
    ]
    assert {"starting", "ready", "policies_refused", "stopped"} <= {x["event"] for x in lines}
    ours = [line for line in lines if line["event"] in {"starting", "ready", "stopped"}]
    run = the(observed.receiver.named("run"))
    assert {line["trace_id"] for line in ours} == {run.trace_id}
    assert all("trace_id" in line for line in lines)


# Secrets


def test_nothing_that_was_sent_shows_in_what_is_exported(observed: Observed) -> None:
    """Verdicts name the author and the key, and dead letters hold the original; nothing else has a word of it."""
    spans = b"".join(observed.receiver.raw)
    exported = {
        "spans": spans.decode("utf-8", "replace"),
        "log": observed.log,
        "/metrics": observed.metrics,
        "/healthz": observed.health,
    }
    for name, text in exported.items():
        assert len(text) > 100, f"nothing was exported as {name}"
        assert "sekrit" not in text, name
        assert "qx7" not in text, name
    letters = [record for record in observed.records if record.topic != observed.verdict_topic]
    assert {letter.value for letter in letters} == set(BAD.values())
