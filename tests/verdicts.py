"""Verdicts as the product makes them, for tests of whoever reads them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson

from stream_guard.judging.contract import Answer, Judgement, JudgeRequest, Provenance
from stream_guard.judging.verdict import build_verdict
from stream_guard.policies.policy import make_policy
from stream_guard.records.post import Post
from stream_guard.records.verdict_event import encode_verdict

if TYPE_CHECKING:
    from stream_guard.core.vocabulary import Decision, Mode

_POLICY = make_policy("spam", b"# Spam\nS1: Unwanted advertising\n")


@dataclass
class FakeRecord:
    """A record of the topic ``posts``."""

    offset: int = 41
    partition: int = 3
    topic: str = "posts"
    timestamp: int = 1_700_000_000_000
    key: bytes | None = b"k"
    value: bytes | None = b"{}"
    headers: list[tuple[str, bytes]] = field(default_factory=list)


def make_verdict(
    *,
    offset: int = 0,
    decision: Decision = "safe",
    category: str | None = None,
    severity: str | None = None,
    sha256: str = "0" * 64,
    published_ms: int = 1_700_000_000_500,
    route_mode: Mode = "live",
) -> dict[str, Any]:
    """Return a verdict on the post at ``offset`` by the version ``sha256`` of the policy ``spam``."""
    policy = replace(_POLICY, sha256=sha256, version=sha256[:12], action="remove")
    request = JudgeRequest(
        "1", Post(id=f"p{offset}", text="t", sha256="0" * 64, text_bytes=1), policy
    )
    judgement = Judgement(
        request,
        answer=Answer(decision, category, parse_status="not_applicable"),
        provenance=Provenance(tier="test", model="test"),
        finished_ns=published_ms * 1_000_000,
    )
    made = build_verdict(
        FakeRecord(offset, partition=0),
        judgement,
        consumed_ms=published_ms,
        published_ms=published_ms,
        route_mode=route_mode,
    )
    verdict: dict[str, Any] = orjson.loads(encode_verdict(made))
    verdict["policy"]["severity"] = severity
    return verdict
