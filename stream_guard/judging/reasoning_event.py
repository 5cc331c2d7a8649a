"""Builds the record of the reasoning topic: the chain of thought behind a verdict. Pure.

The reasoning is raw: it quotes posts, may be wrong about the policy, and is not for end users. It goes to no verdict,
log, metric or span.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_guard.judging.contract import Thought

SCHEMA_VERSION: Final = "1.0"
CHARACTERS_MAX: Final = 100_000
"""Longest text of all thoughts on one verdict, so that the record stays below the topic's limit."""


def reasoning_record(
    verdict: Mapping[str, Any], thoughts: Sequence[Thought], traceparent: str
) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return the value and the headers of the record that goes with a verdict.

    Args:
        verdict: as it is published.
        thoughts: in their order; not empty.
        traceparent: as on the verdict.
    """
    left = CHARACTERS_MAX
    kept = []
    for thought in thoughts:
        kept.append(
            {
                "effort": thought.effort,
                "text": thought.text[:left],
                "cut": thought.cut or len(thought.text) > left,
            }
        )
        left = max(0, left - len(thought.text))
    source, policy, provenance = verdict["source"], verdict["policy"], verdict["provenance"]
    document = {
        "schema_version": SCHEMA_VERSION,
        "verdict_id": verdict["id"],
        "decision": verdict["decision"],
        "source": {name: source[name] for name in ("topic", "partition", "offset")},
        "policy": {name: policy[name] for name in ("id", "version", "sha256")},
        "model": provenance["model"],
        "revision": provenance["revision"],
        "prompt_ids_sha256": provenance["prompt_ids_sha256"],
        "thoughts": kept,
    }
    return orjson.dumps(document), [
        ("content-type", b"application/json"),
        ("sg_verdict_id", verdict["id"].encode()),
        ("traceparent", traceparent.encode()),
    ]
