"""Tells a static member that was replaced by another process from one whose session expired.

With ``kafka.group_instance_id`` the broker replaces a member by the next process that joins with the same id. aiokafka
0.14 sends heartbeats without the id, so the old process hears ``UNKNOWN_MEMBER_ID`` in both cases. It then joins again,
which replaces the new process, and so on: both work on the same partitions in turn, without end.

Version 3 of Heartbeat (KIP-345, Kafka 2.3) carries the id. The broker answers ``FENCED_INSTANCE_ID`` to a member that
was replaced. So before a static member joins again, it asks once in the name of its last membership.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import aiokafka.errors as kafka_errors
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Int16, Int32, Schema, String

from stream_guard.kafka.protocol_errors import FencedInstanceIdError

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer

_HEARTBEAT: Final = 12


class _Response(Response):  # type: ignore[misc] # aiokafka ships no types
    API_KEY = _HEARTBEAT
    API_VERSION = 3
    SCHEMA = Schema(("throttle_time_ms", Int32), ("error_code", Int16))


class _RequestV3(RequestStruct):  # type: ignore[misc]
    API_KEY = _HEARTBEAT
    API_VERSION = 3
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
    )


class _Heartbeat(Request[_RequestV3]):  # type: ignore[misc]
    API_KEY = _HEARTBEAT

    def __init__(self, group: str, membership: tuple[int, str], instance: str) -> None:
        self._fields = (group, *membership, instance)

    def build(self, request_struct_class: Any) -> Any:  # noqa: ANN401 - as aiokafka declares it
        return request_struct_class(*self._fields)


def refuse_twins(consumer: AIOKafkaConsumer, group: str, instance: str) -> None:
    """Have a consumer fail with ``FencedInstanceIdError`` once another process has its ``group_instance_id``.

    Args:
        consumer: started; its next poll raises.
        group: its group.
        instance: its ``group_instance_id``.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 - aiokafka has no public way to send a request
    forget, join = coordinator.reset_generation, coordinator.ensure_active_group
    last: tuple[int, str] | None = None

    def reset_generation() -> None:
        nonlocal last
        if coordinator.member_id:
            last = (coordinator.generation, coordinator.member_id)
        forget()

    async def ensure_active_group(subscription: Any, assignment: Any) -> Any:  # noqa: ANN401
        nonlocal last
        if last is not None:
            try:
                answer = await coordinator._send_req(_Heartbeat(group, last, instance))  # noqa: SLF001
            except kafka_errors.IncompatibleBrokerVersion:
                pass  # a broker before 2.3 knows no static members
            else:
                error = kafka_errors.for_code(answer.error_code)
                if error is FencedInstanceIdError:
                    raise error(instance)
            last = None
        return await join(subscription, assignment)

    coordinator.reset_generation = reset_generation
    coordinator.ensure_active_group = ensure_active_group
