"""What a command and the studio say to each other: JSON messages, each after its length. Pure.

A message is a JSON object with ``is``, the name of its kind. Both ends are of one version of this package, so messages
have no versions of their own.

From the studio: ``hello`` (version, process, engine), ``prepared``, ``judged``, ``exchange``, ``failed``.
From a command: ``policy`` (its files, and a number), ``prepare``, ``judge``, ``cancel``, ``explain``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from stream_guard.core.errors import EngineError, EngineKilledError, PolicyError, RecordError
from stream_guard.judging.contract import (
    Answer,
    Judgement,
    JudgeRequest,
    Provenance,
    Thought,
    TierStep,
)
from stream_guard.judging.families.family import Exchange
from stream_guard.policies.policy import Policy, make_policy
from stream_guard.records.post import Post

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from stream_guard.core.errors import StreamGuardError

__all__ = [
    "LENGTH_BYTES",
    "MESSAGE_BYTES_MAX",
    "error_message",
    "exchange_message",
    "frame",
    "judge_message",
    "judged_message",
    "length_of",
    "policy_message",
    "read_error",
    "read_exchange",
    "read_judged",
    "read_message",
    "read_policy",
    "read_request",
    "unframe",
]

MESSAGE_BYTES_MAX: Final = 32 << 20
"""Of one message: one post, one policy, or one prompt and its answer."""
LENGTH_BYTES: Final = 4


def frame(message: Mapping[str, Any]) -> bytes:
    """Return a message as bytes: its length (4 bytes, big-endian) and its JSON.

    Raises:
        EngineError: it is over :data:`MESSAGE_BYTES_MAX`.
    """
    content = orjson.dumps(message)
    if len(content) > MESSAGE_BYTES_MAX:
        text = f"a message to the studio has {len(content):,} bytes, over {MESSAGE_BYTES_MAX:,}; run with --no-studio"
        raise EngineError(text)
    return len(content).to_bytes(LENGTH_BYTES, "big") + content


def length_of(head: bytes) -> int:
    """Return the length that the first bytes of a message give. Raises ValueError if it is over the limit."""
    length = int.from_bytes(head, "big")
    if length > MESSAGE_BYTES_MAX:
        message = f"a message of {length:,} bytes, over {MESSAGE_BYTES_MAX:,}"
        raise ValueError(message)
    return length


def unframe(content: bytes) -> dict[str, Any]:
    """Return a message from its JSON. Raises ValueError if it is no message."""
    message = orjson.loads(content)
    if not isinstance(message, dict) or not isinstance(message.get("is"), str):
        raise ValueError("not a message")  # noqa: TRY004 - the content is wrong, not a type of ours
    return message


async def read_message(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Return the next message.

    Raises:
        asyncio.IncompleteReadError: the other end closed.
        ValueError: it is too large or no message.
    """
    length = length_of(await reader.readexactly(LENGTH_BYTES))
    return unframe(await reader.readexactly(length))


def policy_message(number: int, policy: Policy) -> dict[str, Any]:
    """Return a policy with the files that its judge reads. Its rules stay with the command."""
    names = ("policy.md", "policy.yaml")
    return {
        "is": "policy",
        "number": number,
        "id": policy.id,
        "sha256": policy.sha256,
        "version": policy.version,
        "effort": policy.effort,
        "reasoning_tokens_max": policy.reasoning_tokens_max,
        "files": {name: policy.files[name].decode() for name in names if name in policy.files},
    }


def read_policy(message: Mapping[str, Any]) -> Policy:
    """Return the policy of a ``policy`` message, with the effort that the command gave it."""
    from dataclasses import replace

    metadata = message["files"].get("policy.yaml")
    policy = make_policy(
        message["id"],
        message["files"]["policy.md"].encode(),
        metadata=None if metadata is None else metadata.encode(),
    )
    return replace(
        policy,
        sha256=message["sha256"],
        version=message["version"],
        effort=message["effort"],
        reasoning_tokens_max=message["reasoning_tokens_max"],
    )


def judge_message(request: JudgeRequest, number: int) -> dict[str, Any]:
    """Return a request; ``number`` is that of its policy."""
    return {
        "is": "judge",
        "id": request.id,
        "policy": number,
        "post": request.post,
        "effort": request.effort,
        "reasoning_tokens_max": request.reasoning_tokens_max,
    }


def read_request(message: Mapping[str, Any], request_id: str, policy: Policy) -> JudgeRequest:
    """Return the request of a ``judge`` message, with an id of the studio's own."""
    return JudgeRequest(
        request_id,
        Post(**_tuples(message["post"])),
        policy,
        context=message["id"],
        effort=message["effort"],
        reasoning_tokens_max=message["reasoning_tokens_max"],
    )


def judged_message(judgement: Judgement) -> dict[str, Any]:
    """Return a judgement; its request's context is the command's id of the request."""
    provenance, fault = judgement.provenance, judgement.error
    return {
        "is": "judged",
        "id": judgement.request.context,
        "answer": judgement.answer,
        "error": None if fault is None else error_message(fault),
        "provenance": None
        if provenance is None
        else {
            **{name: getattr(provenance, name) for name in Provenance.__slots__},
            "trail": [step._asdict() for step in provenance.trail],
        },
        "confidence": judgement.confidence,
        "confidence_method": judgement.confidence_method,
        "started_ns": judgement.started_ns,
        "finished_ns": judgement.finished_ns,
        "thoughts": [thought._asdict() for thought in judgement.thoughts],
    }


def read_judged(message: Mapping[str, Any], request: JudgeRequest) -> Judgement:
    """Return the judgement of a ``judged`` message for the command's own request."""
    answer, provenance = message["answer"], message["provenance"]
    fault = message["error"]
    read = None if fault is None else read_error(fault)
    if provenance is not None:
        trail = tuple(TierStep(**step) for step in provenance["trail"])
        provenance = Provenance(**{**_tuples(provenance), "trail": trail})
    return Judgement(
        request,
        None if answer is None else Answer(**_tuples(answer)),
        read if isinstance(read, RecordError) else None,
        provenance,
        message["confidence"],
        message["confidence_method"],
        message["started_ns"],
        message["finished_ns"],
        tuple(Thought(**thought) for thought in message["thoughts"]),
    )


def exchange_message(exchange: Exchange, request_id: str) -> dict[str, Any]:
    """Return an exchange under the command's id of the request."""
    fields = {name: getattr(exchange, name) for name in Exchange.__slots__}
    return {"is": "exchange", "exchange": fields | {"request_id": request_id}}


def read_exchange(message: Mapping[str, Any]) -> Exchange:
    """Return the exchange of an ``exchange`` message."""
    return Exchange(**message["exchange"])


def error_message(error: BaseException) -> dict[str, Any]:
    """Return an error as its class, its text and what else its class needs."""
    return {
        "class": type(error).__name__,
        "text": str(error),
        "attempts": getattr(error, "attempts", None),
    }


def read_error(message: Mapping[str, Any]) -> StreamGuardError:
    """Return the error that :func:`error_message` described; an EngineError if its class is none of a judge's."""
    name, text = message["class"], message["text"]
    if name == EngineKilledError.__name__:
        return EngineKilledError(message["attempts"])
    kinds: list[type[StreamGuardError]] = [PolicyError, *RecordError.__subclasses__()]
    return next((kind for kind in kinds if kind.__name__ == name), EngineError)(text)


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
