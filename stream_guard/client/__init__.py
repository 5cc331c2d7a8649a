"""For services that act on verdicts: typed verdicts and a consumer. Needs neither vLLM nor a model.

>>> async with VerdictConsumer("localhost:9092", group_id="enforcement", decisions=["violates"]) as verdicts:
...     async for verdict in verdicts:
...         enforce(verdict)
"""

from __future__ import annotations

from stream_guard.client.consumer import VerdictConsumer
from stream_guard.client.errors import (
    BrokerError,
    ClientError,
    RegistryError,
    UnreadableVerdictError,
)
from stream_guard.client.registry import SchemaRegistry
from stream_guard.client.verdicts import (
    Confidence,
    Content,
    Hop,
    PolicyRef,
    Provenance,
    Retracts,
    SourceRef,
    Timing,
    Verdict,
    parse_verdict,
)
from stream_guard.client.window import Window

__all__ = [
    "BrokerError",
    "ClientError",
    "Confidence",
    "Content",
    "Hop",
    "PolicyRef",
    "Provenance",
    "RegistryError",
    "Retracts",
    "SchemaRegistry",
    "SourceRef",
    "Timing",
    "UnreadableVerdictError",
    "Verdict",
    "VerdictConsumer",
    "Window",
    "parse_verdict",
]
