"""Puts the parts of the delivery mode together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.kafka.publisher import KafkaPublisher
from stream_guard.kafka.transactions import KafkaTransactor
from stream_guard.stream.delivery import AtLeastOnce, ExactlyOnce
from stream_guard.stream.exactly_once import TransactionalPublisher

if TYPE_CHECKING:
    from stream_guard.settings import Settings
    from stream_guard.stream.delivery import Delivery
    from stream_guard.stream.ports import Source
    from stream_guard.telemetry.metrics import Metrics

__all__ = ["make_delivery"]


def make_delivery(settings: Settings, source: Source, metrics: Metrics) -> Delivery:
    """Return the delivery mode that the settings name."""
    kafka, delivery = settings.kafka, settings.delivery
    if delivery.mode == "at_least_once":
        publisher = KafkaPublisher(kafka, delivery, metrics)
        return AtLeastOnce(source, publisher, delivery, metrics)
    transactions = TransactionalPublisher(
        KafkaTransactor(kafka, delivery),
        delivery,
        metrics,
        # The second heartbeat from now at the latest says whether the partition is ours.
        fenced_pause_s=2 * kafka.heartbeat_interval_ms / 1_000,
    )
    return ExactlyOnce(source, transactions)
