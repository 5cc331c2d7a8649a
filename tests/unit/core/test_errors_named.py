"""How an error of a library stands in a message."""

from __future__ import annotations

import pytest
from aiokafka.errors import KafkaConnectionError

from stream_guard.core.errors import named


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TimeoutError(), "TimeoutError"),
        (
            OSError(111, "Connection refused"),
            "ConnectionRefusedError: [Errno 111] Connection refused",
        ),
        (KafkaConnectionError("no broker"), "KafkaConnectionError: no broker"),
        (KafkaConnectionError(), "KafkaConnectionError"),
    ],
)
def test_a_type_is_named_once_and_nothing_follows_where_it_says_nothing(
    error: Exception, told: str
) -> None:
    assert named(error) == told
