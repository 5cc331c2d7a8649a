"""Settings of the form in which verdicts and dead letters are written."""

from __future__ import annotations

from typing import Literal

from stream_guard.settings.section import Section


class OutputSettings(Section):
    """The form in which verdicts and dead letters are written."""

    format: Literal["json", "avro"] = "json"
    """``json``: verdicts are JSON, and dead letters have the record's own value. ``avro``: both are Avro with a schema
    id, by schemas in the registry of ``registry.url``."""
    subject_name_strategy: Literal["topic", "record", "topic_record"] = "topic"
    """The subjects of these schemas, as Confluent names them: ``topic`` is ``TOPIC-value``, ``record`` is the record's
    full name, ``topic_record`` is ``TOPIC-`` and that name."""
    auto_register: bool = True
    """Whether a start registers the schemas. If not, they must be registered already; the start looks them up."""
