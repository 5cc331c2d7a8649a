"""Registers the schemas of verdicts and dead letters, or looks them up, once at the start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson
import structlog

from stream_guard.core.errors import SchemaError, SettingsError
from stream_guard.kafka.registry.client import RegistryClient
from stream_guard.records.avro_contract import DEAD_LETTER, VERDICT, contract_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.records.avro_contract import AvroContract
    from stream_guard.records.avro_output import AvroOutput, AvroOutputs
    from stream_guard.settings import Settings

__all__ = ["check_output", "open_output", "open_topic_output", "subject_of"]

_log = structlog.get_logger(__name__)
_SCHEMAS: Final = "docs/contracts"


def subject_of(settings: Settings, topic: str, contract: AvroContract) -> str:
    """Return the subject of a topic's schema, as Confluent's strategies name it."""
    strategy = settings.output.subject_name_strategy
    if strategy == "topic":
        return f"{topic}-value"
    return contract.full_name if strategy == "record" else f"{topic}-{contract.full_name}"


async def open_output(settings: Settings) -> AvroOutputs | None:
    """Return what writes Avro to the topics of verdicts and dead letters; None with ``output.format = "json"``.

    Raises:
        SettingsError: a schema is incompatible with its subject, or is not registered; or the extra is not installed.
        RegistryError: the registry is unreachable, or refused the request.
    """
    if settings.output.format == "json":
        return None
    outputs = await _open(settings, _contracts(settings))
    from stream_guard.records.avro_output import AvroOutputs

    dead = settings.kafka.dead_letter_topic
    verdicts = {topic: output for topic, output in outputs.items() if topic != dead}
    return AvroOutputs(verdicts, outputs[dead])


async def open_topic_output(settings: Settings, topic: str) -> AvroOutput | None:
    """Return what writes verdicts to another topic; None for JSON; raises as :func:`open_output`."""
    if settings.output.format == "json":
        return None
    return (await _open(settings, {topic: VERDICT}))[topic]


def _contracts(settings: Settings) -> dict[str, str]:
    """Return the name of each topic's contract."""
    kafka = settings.kafka
    contracts = {kafka.verdict_topic: VERDICT, kafka.dead_letter_topic: DEAD_LETTER}
    if kafka.shadow_topic is not None:
        contracts[kafka.shadow_topic] = VERDICT
    return contracts


async def _open(settings: Settings, contracts: Mapping[str, str]) -> dict[str, AvroOutput]:
    from stream_guard.kafka.registry.schemas import require_libraries

    require_libraries()
    from stream_guard.records.avro_output import AvroOutput

    outputs = {}
    async with RegistryClient(settings.registry) as client:
        for topic, name in contracts.items():
            contract = contract_of(name)
            subject = subject_of(settings, topic, contract)
            text = _text(contract)
            if settings.output.auto_register:
                schema_id = await client.register(subject, text)
            else:
                try:
                    schema_id = await client.look_up(subject, text)
                except SchemaError as error:
                    raise _not_registered(subject, name, error) from None
            outputs[topic] = AvroOutput(contract, schema_id)
            _log.info("output_schema", topic=topic, subject=subject, schema_id=schema_id)
    return outputs


async def check_output(settings: Settings) -> str:
    """Say how the start would find each schema, and change nothing; raises as :func:`open_output`."""
    found = []
    async with RegistryClient(settings.registry) as client:
        for topic, name in _contracts(settings).items():
            contract = contract_of(name)
            subject, text = subject_of(settings, topic, contract), _text(contract)
            try:
                found.append(f"{subject} has schema id {await client.look_up(subject, text)}")
            except SchemaError as error:
                if not settings.output.auto_register:
                    raise _not_registered(subject, name, error) from None
                if not await client.is_compatible(subject, text):
                    message = (
                        f"output.format: the subject {subject} has a version that is incompatible with this schema; "
                        "choose another output.subject_name_strategy or topic, or lower its compatibility level"
                    )
                    raise SettingsError(message) from None
                found.append(f"{subject} gets its schema at the start")
    return "; ".join(found)


def _text(contract: AvroContract) -> str:
    return orjson.dumps(contract.schema).decode()


def _not_registered(subject: str, name: str, error: SchemaError) -> SettingsError:
    return SettingsError(
        f"output.auto_register is false, and the schema of {subject} is not in the registry: {error}; register "
        f"{_SCHEMAS}/{name} under this subject, or set output.auto_register to true"
    )
