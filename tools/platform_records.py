"""Generates records as platforms emit them, with one field altered in type, size, encoding or depth, and parses each.

``python -m tools.platform_records --records 100000 --seed 1`` prints the outcomes. Every record must end as a verdict,
a skip or a dead letter. Only an altered id, text or title, or an altered encoding, may make a dead letter.
"""

from __future__ import annotations

import argparse
import base64
import copy
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import hypothesis
from hypothesis import strategies as st

from stream_guard.core.errors import NotAPostError, RecordError
from stream_guard.core.json_pointer import JsonPointer
from stream_guard.judging.contract import Answer, Judgement, JudgeRequest, Provenance
from stream_guard.judging.verdict import build_verdict
from stream_guard.policies.policy import make_policy
from stream_guard.records.dead_letter_event import build_dead_letter
from stream_guard.records.post import PostParser
from stream_guard.records.verdict_event import VerdictEvents
from stream_guard.settings import KafkaSettings, PostSettings
from stream_guard.testing import MemoryRecord

VERDICT_BYTES_MAX: Final = 256 << 10
_POLICY: Final = make_policy("spam", b"# Spam\nS1: Unwanted advertising\n")
_KAFKA: Final = KafkaSettings(topics=("posts",))
_EVENT: Final = {"specversion": "1.0", "id": "e1", "source": "/platform", "type": "post.created"}


@dataclass(frozen=True)
class Platform:
    """One shape of records.

    Attributes:
        document: a record that is a post.
        post: the ``post`` settings that read it.
        headers: of the record.
    """

    document: dict[str, Any]
    post: dict[str, Any] = field(default_factory=dict)
    headers: tuple[tuple[str, bytes], ...] = ()


_PLAIN: Final = {"id": "1", "text": "Buy now", "author": "a", "created_at": 1_700_000_000}
PLATFORMS: Final = {
    "mastodon": Platform(
        {"event": "update", "payload": {"id": "109", "content": "<p>Buy</p>", "language": "en",
         "created_at": "2024-01-01T00:00:00.000Z", "account": {"id": "7"}, "spoiler_text": "cw", "in_reply_to": None}},
        {"id": "/payload/id", "text": "/payload/content", "author": "/payload/account/id",
         "title": "/payload/spoiler_text",
         "language": "/payload/language", "created_at": "/payload/created_at", "parent": "/payload/in_reply_to",
         "where": {"/event": ["update", "status.update"]}},
    ),
    "discord": Platform(
        {"id": "1165", "channel_id": "9", "content": "Buy now", "author": {"id": "80", "username": "n"},
         "timestamp": "2024-01-01T00:00:00.000000+00:00", "type": 0, "referenced_message": {"content": "hi"}},
        {"text": "/content", "author": "/author/id", "created_at": "/timestamp",
         "parent": "/referenced_message/content",
         "where": {"/type": [0, 19]}},
    ),
    "reddit": Platform(
        {"kind": "t3", "data": {"name": "t3_x", "selftext": "Buy", "title": "Deal", "author_fullname": "t2_a",
         "created_utc": 1_700_000_000.0, "subreddit": "s"}},
        {"id": "/data/name", "text": "/data/selftext", "title": "/data/title", "author": "/data/author_fullname",
         "tenant": "/data/subreddit", "created_at": "/data/created_utc", "where": {"/kind": "t3"}},
    ),
    "at protocol": Platform(
        {"did": "did:plc:a", "time_us": 1_700_000_000_000_000, "kind": "commit", "commit": {"operation": "create",
         "collection": "app.bsky.feed.post", "rkey": "3k", "record": {"text": "Buy", "langs": ["en"],
         "createdAt": "2024-01-01T00:00:00Z"}}},
        {"id": "/commit/rkey", "text": "/commit/record/text", "author": "/did", "language": "/commit/record/langs",
         "created_at": "/commit/record/createdAt",
         "where": {"/kind": "commit", "/commit/operation": ["create", "update"]}},
    ),
    "slack": Platform(
        {"team_id": "T1", "event": {"type": "message", "text": "Buy", "user": "U1", "ts": "1700000000.000100"}},
        {"id": "/event/ts", "text": "/event/text", "author": "/event/user", "tenant": "/team_id",
         "created_at": "/event/ts",
         "where": {"/event/type": "message", "/event/subtype": None}},
    ),
    "debezium": Platform(
        {"op": "c", "ts_ms": 1_700_000_000_000, "before": None, "after": {"id": 7, "body": "Buy", "user_id": 9,
         "created": 1_700_000_000_000_000}},
        {"id": "/after/id", "text": "/after/body", "author": "/after/user_id", "created_at": "/after/created",
         "where": {"/op": ["c", "u", "r"]}},
    ),
    "cloudevents, binary": Platform(
        dict(_PLAIN), {"format": "cloudevents"},
        (*((f"ce_{name}", value.encode()) for name, value in _EVENT.items()), ("ce_time", b"2024-01-01T00:00:00Z")),
    ),
    "cloudevents, structured": Platform(
        {**_EVENT, "time": "2024-01-01T00:00:00Z", "data": dict(_PLAIN)}, {"format": "cloudevents"},
        (("Content-Type", b"Application/CloudEvents+JSON"),),
    ),
    "cloudevents, base64": Platform(
        {**_EVENT, "data_base64": base64.b64encode(json.dumps(_PLAIN).encode()).decode()}, {"format": "cloudevents"},
        (("content-type", b"application/cloudevents+json"),),
    ),
}  # fmt: skip
_PARSERS: Final = {name: PostParser(PostSettings(**one.post)) for name, one in PLATFORMS.items()}


def _deep(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


# In type, size and encoding; the marker becomes half a character in the JSON's bytes.
_HALF: Final = "<half>"
HOSTILE: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(["", " ", "1700000000", "2016-12-31T23:59:60Z", "Tue, 15 Nov 1994 12:45:26 GMT", "24:00"]),
    st.sampled_from(["\x00", "\ufeff", "\u202e"]),
    st.sampled_from([f"cut {_HALF}", _HALF * 3, "ü" * 3_000, "x" * 200_000, "\U0001f600" * 2_000]),
    st.sampled_from([[], {}, ["en"], ["en", "de"], {"$date": "2024-01-01T00:00:00Z"}, {"$oid": "1"}, _deep(20)]),
    st.recursive(
        st.none() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    ),
)  # fmt: skip
ENCODINGS: Final = ("as it is",) * 12 + (
    "mark",
    "utf-16",
    "cut",
    "frame",
    "gzip",
    "latin-1",
    "nan",
    "null",
)


def _leaves(document: Any, place: str = "") -> list[str]:
    if not isinstance(document, dict):
        return [place]
    return [leaf for name, value in document.items() for leaf in _leaves(value, f"{place}/{name}")]


def _put(document: dict[str, Any], place: str, value: Any) -> None:
    *folders, name = JsonPointer(place).parts
    for folder in folders:
        document = document[folder]
    document[name] = value


def _encoded(document: Any, encoding: str) -> bytes | None:
    raw = json.dumps(document).encode().replace(_HALF.encode(), rb"\ud83d")
    return {
        "mark": b"\xef\xbb\xbf" + raw,
        "utf-16": raw.decode().encode("utf-16"),
        "cut": raw[:-3],
        "frame": b"\0\0\0\0\7" + raw,
        "gzip": b"\x1f\x8b" + raw,
        "latin-1": raw + b"\xe9",
        "nan": raw[:-1] + b', "score": NaN}',
        "null": None,
    }.get(encoding, raw)


@dataclass(frozen=True)
class Case:
    """One record: its platform, the altered place and value, and the encoding."""

    platform: str
    place: str
    value: Any
    encoding: str

    @property
    def record(self) -> MemoryRecord:
        """The record to read."""
        platform = PLATFORMS[self.platform]
        document = copy.deepcopy(platform.document)
        _put(document, self.place, self.value)
        raw = _encoded(document, self.encoding)
        return MemoryRecord("posts", 0, 0, -1, None, raw, list(platform.headers))

    @property
    def may_fail(self) -> bool:
        """Whether the record may become a dead letter."""
        if self.encoding not in ("as it is", "mark"):
            return True
        settings = PostSettings(**PLATFORMS[self.platform].post)
        needed = {settings.id, settings.text, settings.title}
        if self.platform in ("cloudevents, structured", "cloudevents, base64"):
            # The event's own attributes are needed, except for its time.
            return self.place != "/time" and (
                not self.place.startswith("/data/") or self.place.removeprefix("/data") in needed
            )
        return self.place in needed


CASES: Final = st.sampled_from(sorted(PLATFORMS)).flatmap(
    lambda name: st.builds(
        Case,
        st.just(name),
        st.sampled_from(_leaves(PLATFORMS[name].document)),
        HOSTILE,
        st.sampled_from(ENCODINGS),
    )
)


def outcome(case: Case) -> str:
    """Return ``verdict``, ``skip`` or the reason of the dead letter; what is written must fit into its topic."""
    record = case.record
    try:
        post = _PARSERS[case.platform].parse(record.value, record.headers)
    except NotAPostError:
        return "skip"
    except RecordError as error:
        letter = build_dead_letter(
            record, error, kafka=_KAFKA, failed_ms=0, policy_id=None, attempts=1
        )
        assert len(letter.value or b"") <= _KAFKA.dead_letter_bytes_max
        return error.reason
    request = JudgeRequest("1", post, _POLICY)
    provenance = Provenance(tier="test", model="test")
    judgement = Judgement(request, answer=Answer("safe"), provenance=provenance)
    verdict = build_verdict(record, judgement, consumed_ms=1, published_ms=1)
    value, _ = VerdictEvents(1).encode(verdict, "")
    assert len(value) <= VERDICT_BYTES_MAX
    return "verdict"


def run(records: int, seed: int) -> Counter[str]:
    """Return how many records had which outcome. Raises AssertionError where a field fails a post that must not."""
    found: Counter[str] = Counter()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=records,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(CASES)
    def every(case: Case) -> None:
        result = outcome(case)
        assert result in ("verdict", "skip") or case.may_fail, (result, case)
        found[result] += 1

    every()
    return found


def main() -> None:
    """Run, and print the outcomes."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--records", type=int, default=100_000)
    options.add_argument("--seed", type=int, default=1)
    asked = options.parse_args()
    found = run(asked.records, asked.seed)
    for name, count in found.most_common():
        print(f"{count:>8,}  {name}")
    print(f"{found.total():>8,}  records, seed {asked.seed}")


if __name__ == "__main__":
    main()
