"""The model's chain of thought, for the reasoning topic. Pure.

It is raw: it quotes posts, may be wrong about the policy, and is for no end user. What it must never do: reach a
verdict, a log, a metric or a span.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from stream_guard.judging.contract import Thought
from stream_guard.judging.families.harmony.tokens import split_messages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_guard.core.vocabulary import Effort
    from stream_guard.judging.families.harmony.tokens import ControlTokens, Tokenizer

SCHEMA_VERSION: Final = "1.0"
CHARACTERS_MAX: Final = 100_000
"""Of the thoughts on one verdict, all attempts and rungs together: a record stays below what a topic takes."""
_THINKING: Final = ("analysis", "commentary")


def read_thought(
    ids: Sequence[int], tokens: ControlTokens, tokenizer: Tokenizer, effort: Effort
) -> tuple[Thought, ...]:
    """Return what a completion holds outside its answer; empty where there is nothing. Never raises."""
    parts = [
        tokenizer.decode([token for token in message.ids if token not in tokens.every])
        for message in split_messages(ids, tokens, tokenizer)
        if message.channel in _THINKING
    ]
    text = "\n".join(part for part in parts if part.strip())
    return (Thought(effort, text),) if text else ()


def reasoning_record(
    verdict: Mapping[str, Any], thoughts: Sequence[Thought], traceparent: str
) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return the value and the headers of the record that goes with a verdict.

    Args:
        verdict: as it is published.
        thoughts: in the order in which they were thought; not empty.
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
