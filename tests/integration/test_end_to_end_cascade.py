"""Each tier settles and escalates on the whole path: a real broker, the real program, the real engine."""

from __future__ import annotations

import urllib.request
from typing import TYPE_CHECKING, Any

import jsonschema
import orjson
from prometheus_client.parser import text_string_to_metric_families

from stream_guard.records.verdict_event import verdict_schema
from tests.integration.harness import HANG_S, ROOT, deploy, produce, read, running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stream_guard.testing import Broker

POLICY = "age-restricted-goods-and-services"
NEW = ("duplicates", "escalated", "new")
META = b"""\
categories:
  ARS2: {severity: critical, action: remove}
undetermined: fail_closed
action: hide
reasoning_tokens_max: 16
"""


RULES = b"""\
rules:
  - {id: own-notice, outcome: safe, terms: [notice of the house]}
  - {id: known-tout, outcome: violates, category: ARS2, rule_ids: [ARS2.a], terms: [cheap booze]}
  - {id: look-closer, outcome: escalate, terms: [booze]}
"""
CLASSIFIED = (
    META
    + b"""\
classifier: builtin:toxicity
thresholds: {safe_below: 0.03, violates_above: 0.97, category: ARS1}
"""
)


def make_post(number: int, text: str) -> bytes:
    return orjson.dumps({"id": f"p{number}", "text": text})


def make_policies(folder: Path) -> Path:
    """Make a folder with one of the shipped policies, unmodified, and what cannot be read out of it."""
    (folder / POLICY).mkdir(parents=True)
    text = (ROOT / "policies" / POLICY / "policy.md").read_bytes()
    (folder / POLICY / "policy.md").write_bytes(text)
    (folder / POLICY / "policy.yaml").write_bytes(META)
    return folder


def engine_environment(model: Path, policies: Path, ladder: list[dict[str, Any]]) -> dict[str, str]:
    """Return the settings of an engine that emits what its post asks for."""
    extra = {
        "logits_processors": ["tests.integration.scripted_tokens:ScriptedTokens"],
        "async_scheduling": False,
    }
    return {
        "STREAM_GUARD_ENGINE__KIND": "vllm",
        "STREAM_GUARD_ENGINE__MODEL": str(model),
        # Random weights write no answer by themselves: an attempt without the grammar would only take time.
        "STREAM_GUARD_ENGINE__CONSTRAINT": "always",
        "STREAM_GUARD_ENGINE__MAX_NUM_SEQS": "16",
        "STREAM_GUARD_ENGINE__RATIONALE_TOKENS_MAX": "16",
        "STREAM_GUARD_ENGINE__EXTRA": orjson.dumps(extra).decode(),
        "STREAM_GUARD_POLICIES__PATH": str(policies),
        "STREAM_GUARD_CASCADE__LADDER": orjson.dumps(ladder).decode(),
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }


def counters(port: int, name: str) -> dict[tuple[str, ...], int]:
    """Return a counter's values by its labels, in their names' order."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=HANG_S) as answer:
        page = answer.read().decode()
    return {
        tuple(value for _, value in sorted(sample.labels.items())): int(sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == f"{name}_total"
    }


def trail(verdict: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(s["tier"], s["outcome"], s["reason"]) for s in verdict["provenance"]["trail"]]


async def test_tiers_settle_and_escalate_and_the_engines_tokens_fall(
    broker: Broker, new_topic: Callable[..., str], random_model: Path, tmp_path: Path
) -> None:
    ladder = [{"effort": e, "reasoning_tokens_max": n} for e, n in (("medium", 24), ("high", 32))]
    settings = engine_environment(random_model, make_policies(tmp_path / "policies"), ladder)
    place = deploy(broker.bootstrap_servers, new_topic, **settings)
    texts = ["fine 1", "mild 2", "severe 3", "muddled 4", "hopeless 5"]
    with running(place, tmp_path / "log", ["tests.integration.scripted_app"]) as run:
        port = run.wait_for("ready")["http_port"]

        async def judge(posts: list[bytes], owed: int) -> dict[str, dict[str, Any]]:
            await produce(place.bootstrap, place.posts, posts)
            records = await read(place.bootstrap, [place.verdicts], lambda got: len(got) >= owed)
            verdicts = [orjson.loads(record.value) for record in records]
            assert len(verdicts) == owed
            return {verdict["content"]["id"]: verdict for verdict in verdicts}

        await judge([make_post(n, text) for n, text in enumerate(texts, 1)], 5)
        first = counters(port, "stream_guard_tokens")
        # All of them once more, with white space of their own: only what was not decided costs anything.
        again = [make_post(10 + n, f" {text}\r\n") for n, text in enumerate(texts, 1)]
        verdicts = await judge(again, 10)
        second = counters(port, "stream_guard_tokens")
        tiers = counters(port, "stream_guard_tier_posts")
        assert run.end() == 0, run.tail()

    validator = jsonschema.Draft202012Validator(verdict_schema())
    for verdict in verdicts.values():
        validator.validate(verdict)
    low = ("safeguard", "settled", "answered")
    assert trail(verdicts["p1"]) == trail(verdicts["p2"]) == [NEW, low]
    assert trail(verdicts["p3"]) == [NEW, ("safeguard", "escalated", "severe"), low]
    malformed = ("safeguard", "escalated", "malformed")
    assert trail(verdicts["p4"]) == [NEW, malformed, malformed, low]
    assert trail(verdicts["p5"])[3] == ("safeguard", "settled", "last_rung:malformed")
    assert [step["effort"] for step in verdicts["p5"]["provenance"]["trail"]] == [
        *(None, "low", "medium", "high")
    ]
    decided = [(verdicts[f"p{n}"]["decision"], verdicts[f"p{n}"]["action"]) for n in range(1, 6)]
    assert decided == [
        ("safe", "none"),
        ("violates", "hide"),
        ("violates", "remove"),
        ("violates", "hide"),
        ("undetermined", "hide"),
    ]
    spent = {}
    for n in range(1, 6):
        one, two = verdicts[f"p{n}"], verdicts[f"p{10 + n}"]
        assert (one["decision"], one["policy"]) == (two["decision"], two["policy"])
        assert one["provenance"]["effort"] == two["provenance"]["effort"]
        spent[n] = two["provenance"]["output_tokens"]
        if n < 5:
            assert trail(two) == [("duplicates", "settled", f"repeats:p{n}")]
    assert (spent[1], spent[2], spent[3], spent[4]) == (0, 0, 0, 0)
    assert spent[5] > 0
    for kind, label in (("prompt", "prompt_tokens"), ("output", "output_tokens")):
        whole = sum(verdicts[f"p{n}"]["provenance"][label] for n in range(1, 6))
        assert first[kind,] == whole
        assert second[kind,] - first[kind,] == verdicts["p15"]["provenance"][label] < whole
    assert tiers == {
        ("escalated", "duplicates"): 6,
        ("settled", "duplicates"): 4,
        ("escalated", "safeguard"): 7,
        ("settled", "safeguard"): 6,
    }


async def test_rules_and_the_classifier_settle_before_the_model(
    broker: Broker, new_topic: Callable[..., str], random_model: Path, tmp_path: Path
) -> None:
    folder = make_policies(tmp_path / "policies")
    (folder / POLICY / "policy.yaml").write_bytes(CLASSIFIED)
    (folder / POLICY / "rules.yaml").write_bytes(RULES)
    settings = engine_environment(random_model, folder, [])
    place = deploy(broker.bootstrap_servers, new_topic, **settings)
    texts = {
        "p1": "A Notice of the House: closed on Monday.",
        "p2": "CHEAP   b\u043eoze at the back door",  # with a Cyrillic o
        "p3": "booze? Thank you for the lovely evening, the museum was great",
        "p4": "You are a stupid fucking idiot",
        "p5": "fine and a damn good drink",
        "p6": "mild or booze, a damn good drink",
    }
    with running(place, tmp_path / "log", ["tests.integration.scripted_app"]) as run:
        port = run.wait_for("ready")["http_port"]
        await produce(
            place.bootstrap,
            place.posts,
            [orjson.dumps({"id": name, "text": text}) for name, text in texts.items()],
        )
        records = await read(place.bootstrap, [place.verdicts], lambda got: len(got) >= len(texts))
        tokens = counters(port, "stream_guard_tokens")
        assert run.end() == 0, run.tail()
    verdicts = {v["content"]["id"]: v for v in (orjson.loads(r.value) for r in records)}
    model = ("safeguard", "settled", "answered")
    no_hit = ("rules", "escalated", "no_hit")
    assert {name: trail(verdict)[1:] for name, verdict in verdicts.items()} == {
        "p1": [("rules", "settled", "rule:own-notice")],
        "p2": [("rules", "settled", "rule:known-tout")],
        "p3": [("rules", "escalated", "rule:look-closer"), ("classifier", "settled", "below:0.03")],
        "p4": [no_hit, ("classifier", "settled", "above:0.97")],
        "p5": [no_hit, ("classifier", "escalated", "between"), model],
        "p6": [
            ("rules", "escalated", "rule:look-closer"),
            ("classifier", "escalated", "between"),
            model,
        ],
    }
    decided = {name: (v["decision"], v["policy"]["category"]) for name, v in verdicts.items()}
    assert decided["p1"] == ("safe", None)
    assert decided["p2"] == ("violates", "ARS2")
    assert verdicts["p2"]["policy"]["rule_ids"] == ["ARS2.a"]
    assert (verdicts["p2"]["policy"]["severity"], verdicts["p2"]["action"]) == (
        "critical",
        "remove",
    )
    assert decided["p3"][0] == "safe"
    assert decided["p4"] == ("violates", "ARS1")
    assert verdicts["p4"]["confidence"]["value"] > 0.97
    # Only what no cheap tier settled cost the engine anything.
    asked = [v["provenance"] for v in verdicts.values() if v["provenance"]["tier"] == "safeguard"]
    assert len(asked) == 2
    assert tokens["output",] == sum(p["output_tokens"] for p in asked) > 0
    assert all(
        v["provenance"]["output_tokens"] == 0
        for v in verdicts.values()
        if v["provenance"]["tier"] != "safeguard"
    )
