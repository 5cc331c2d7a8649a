"""What a command and the studio say to each other: JSON messages, each after its length. Pure.

A message is a JSON object with ``is``, the name of its kind. Both ends are of one version of this package, so messages
have no versions of their own.

From the studio: ``hello`` (version, process, engine), ``prepared``, ``judged``, ``exchange``, ``failed``.
From a command: ``policy`` (its files, and a number), ``prepare``, ``judge``, ``cancel``, ``explain``.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from stream_guard.core.errors import EngineError, EngineKilledError, PolicyError, RecordError
from stream_guard.judging.contract import Judgement, JudgeRequest
from stream_guard.offline.studio.plain_data import from_plain, to_plain
from stream_guard.policies.policy import Policy, make_policy

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from stream_guard.core.errors import StreamGuardError
    from stream_guard.judging.families.family import Exchange

__all__ = [
    "LENGTH_BYTES",
    "MESSAGE_BYTES_MAX",
    "error_message",
    "exchange_message",
    "frame",
    "judge_message",
    "judged_message",
    "length_of",
    "policy_key",
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
_FROM_FILES: Final = frozenset(
    {"text", "taxonomy", "rules", "calibration", "thresholds", "golden_set", "folder", "files"}
    | {"limits", "gates"}
)
"""Fields of a policy that the studio reads out of its files again, or that its judge does not use."""
_POLICY_FIELDS: Final = tuple(f.name for f in fields(Policy) if f.name not in _FROM_FILES)
_LOCAL: Final = frozenset({"id", "policy", "context", "trace_headers", "span"})
_REQUEST_FIELDS: Final = tuple(f.name for f in fields(JudgeRequest) if f.name not in _LOCAL)
_JUDGEMENT_FIELDS: Final = tuple(
    f.name for f in fields(Judgement) if f.name not in {"request", "error"}
)


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
        "files": {name: policy.files[name].decode() for name in names if name in policy.files},
        "fields": {name: to_plain(getattr(policy, name)) for name in _POLICY_FIELDS},
    }


def read_policy(message: Mapping[str, Any]) -> Policy:
    """Return the policy of a ``policy`` message, with the effort and all else that the command gave it."""
    metadata = message["files"].get("policy.yaml")
    found = from_plain(message["fields"])
    policy = make_policy(
        found["id"],
        message["files"]["policy.md"].encode(),
        metadata=None if metadata is None else metadata.encode(),
    )
    return replace(policy, **found)


def policy_key(policy: Policy) -> bytes:
    """Return bytes that are equal for policies that a judge cannot tell apart."""
    return orjson.dumps(policy_message(0, policy))


def judge_message(request: JudgeRequest, number: int) -> dict[str, Any]:
    """Return a request; ``number`` is that of its policy."""
    carried = {name: to_plain(getattr(request, name)) for name in _REQUEST_FIELDS}
    return {"is": "judge", "id": request.id, "policy": number, "fields": carried}


def read_request(message: Mapping[str, Any], request_id: str, policy: Policy) -> JudgeRequest:
    """Return the request of a ``judge`` message, with an id of the studio's own."""
    carried = from_plain(message["fields"])
    return JudgeRequest(id=request_id, policy=policy, context=message["id"], **carried)


def judged_message(judgement: Judgement) -> dict[str, Any]:
    """Return a judgement; its request's context is the command's id of the request."""
    fault = judgement.error
    return {
        "is": "judged",
        "id": judgement.request.context,
        "error": None if fault is None else error_message(fault),
        "fields": {name: to_plain(getattr(judgement, name)) for name in _JUDGEMENT_FIELDS},
    }


def read_judged(message: Mapping[str, Any], request: JudgeRequest) -> Judgement:
    """Return the judgement of a ``judged`` message for the command's own request."""
    fault = None if message["error"] is None else read_error(message["error"])
    error = fault if isinstance(fault, RecordError) else None
    return Judgement(request=request, error=error, **from_plain(message["fields"]))


def exchange_message(exchange: Exchange, request_id: str) -> dict[str, Any]:
    """Return an exchange under the command's id of the request."""
    return {"is": "exchange", "exchange": to_plain(replace(exchange, request_id=request_id))}


def read_exchange(message: Mapping[str, Any]) -> Exchange:
    """Return the exchange of an ``exchange`` message."""
    exchange: Exchange = from_plain(message["exchange"])
    return exchange


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
