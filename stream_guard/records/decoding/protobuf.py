"""Decodes Protobuf into JSON-like documents. The only module that imports protobuf.

Field names are those of the ``.proto`` file. Fields without presence have their default where the bytes leave them
out; optional fields, messages and members of a oneof are missing then. Integers stay integers, and enums are names.
Well-known types follow Protobuf's JSON mapping (https://protobuf.dev/programming-guides/json/).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from google.protobuf import (
    any_pb2,
    api_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    json_format,
    message_factory,
    source_context_pb2,
    struct_pb2,
    timestamp_pb2,
    type_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError as ProtobufError

from stream_guard.core.errors import DecodeError, RecordError, SchemaError
from stream_guard.records.decoding.frame import read_indexes
from stream_guard.records.decoding.values import bytes_text, decimal_text
from stream_guard.records.json_document import check_depth

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
    from google.protobuf.message import Message

__all__ = ["ProtobufSchema"]

_Convert: TypeAlias = "Callable[[Any], Any]"
_KNOWN_FILES: Final = {
    module.DESCRIPTOR.name: module.DESCRIPTOR.serialized_pb
    for module in (
        any_pb2,
        descriptor_pb2,
        duration_pb2,
        empty_pb2,
        field_mask_pb2,
        source_context_pb2,
        struct_pb2,
        timestamp_pb2,
        type_pb2,
        api_pb2,
        wrappers_pb2,
    )
}
_FIRST_TAG: Final = b"\x08"
"""The least first byte of a message: field 1, a varint."""
_FIRST: Final[tuple[int, ...]] = (0,)
_DECIMAL: Final = ("confluent.type.Decimal", "confluent.types.Decimal")
"""Confluent's message for decimals: ``value`` (bytes), ``precision`` and ``scale``."""


def _confluent_files() -> dict[str, bytes]:
    """Return the files that Confluent's serializers import without registering them."""
    field = descriptor_pb2.FieldDescriptorProto
    files = {}
    for name, package in (
        ("confluent/type/decimal.proto", "confluent.type"),
        ("confluent/types/decimal.proto", "confluent.types"),
    ):
        file = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3")
        message = file.message_type.add(name="Decimal")
        for number, (label, kind) in enumerate(
            (
                ("value", field.TYPE_BYTES),
                ("precision", field.TYPE_UINT32),
                ("scale", field.TYPE_INT32),
            ),
            1,
        ):
            message.field.add(name=label, number=number, type=kind, label=field.LABEL_OPTIONAL)
        files[name] = file.SerializeToString()
    # Options of fields only, which decoding does not need.
    meta = descriptor_pb2.FileDescriptorProto(name="confluent/meta.proto", package="confluent")
    files[meta.name] = meta.SerializeToString()
    return files


_KNOWN_FILES.update(_confluent_files())


class ProtobufSchema:
    """A Protobuf schema of a registry.

    Args:
        file: a serialized ``FileDescriptorProto``.
        references: the files that it imports, by name, each after those that it imports itself.

    Raises:
        SchemaError: it is no file of Protobuf, or it imports a file that is not here.
    """

    kind: Final = "protobuf"

    def __init__(self, file: bytes, references: Sequence[tuple[str, bytes]]) -> None:
        pool = descriptor_pool.DescriptorPool()
        try:
            known = {name: _named_file(name, each) for name, each in references}
            self._file = _named_file(None, file)
            _add(pool, self._file, known, set())
        except SchemaError:
            raise
        except Exception as error:  # noqa: BLE001 - protobuf raises TypeError and others for what is no file
            message = f"not a Protobuf schema that can be used: {type(error).__name__}"
            raise SchemaError(message) from None
        self._pool = pool
        self._messages: dict[tuple[int, ...], tuple[_Convert, _Convert, int | None]] = {}

    def decode(self, value: bytes, frame: bytes, start: int, max_depth: int) -> tuple[Any, bool]:
        """Return the document; see :class:`.schema.Schema`."""
        if frame[start : start + 1] == b"\x00":  # the first message of the file: nearly always
            indexes, end = _FIRST, start + 1
        else:
            indexes, end = self._indexes(frame, start)
        known = self._messages.get(indexes)
        parse, convert, depth = known if known is not None else self._message(indexes)
        try:
            document = convert(parse(value[end:] if frame is value else value))
            if depth is None or depth > max_depth:
                check_depth(document, max_depth)
        except RecordError:
            raise
        except ProtobufError:
            raise DecodeError("the bytes do not follow the record's Protobuf schema") from None
        except Exception as error:  # noqa: BLE001 - values that the schema allows and Python cannot hold
            message = f"the record's Protobuf message cannot be read: {type(error).__name__}"
            raise DecodeError(message) from None
        return document, False

    def _indexes(self, frame: bytes, start: int) -> tuple[tuple[int, ...], int]:
        """Return the indexes of a message, and where they end.

        npm's @kafkajs/confluent-schema-registry writes none: the bytes of the first message follow at once. These never
        begin with a byte below 8, and as indexes they name no message.
        """
        try:
            indexes, end = read_indexes(frame, start)
            if indexes not in self._messages:
                self._message(indexes)
        except DecodeError:
            if frame[start : start + 1] < _FIRST_TAG:
                raise
            return _FIRST, start
        return indexes, end

    def _message(self, indexes: tuple[int, ...]) -> tuple[_Convert, _Convert, int | None]:
        messages: Sequence[DescriptorProto] = self._file.message_type
        names = [self._file.package] if self._file.package else []
        for index in indexes:
            if not 0 <= index < len(messages):
                message = f"the record's Protobuf schema has no message at {list(indexes)}"
                raise DecodeError(message)
            names.append(messages[index].name)
            messages = messages[index].nested_type
        descriptor = self._pool.FindMessageTypeByName(".".join(names))
        kind = message_factory.GetMessageClass(descriptor)
        plans = _Plans()
        convert = plans.of(descriptor)
        made = (kind.FromString, convert, _depth(descriptor, frozenset()))
        self._messages[indexes] = made
        return made


def _named_file(name: str | None, serialized: bytes) -> FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto.FromString(serialized)
    if name is not None:
        file.name = name
    elif not file.name or file.name in _KNOWN_FILES:
        file.name = "schema.proto"
    return file


def _add(
    pool: descriptor_pool.DescriptorPool,
    file: FileDescriptorProto,
    known: dict[str, FileDescriptorProto],
    added: set[str],
) -> None:
    """Add a file to a pool, and before it what it imports."""
    added.add(file.name)
    for name in file.dependency:
        if name in added:
            continue
        if name in known:
            _add(pool, known[name], known, added)
        elif name in _KNOWN_FILES:
            _add(
                pool,
                descriptor_pb2.FileDescriptorProto.FromString(_KNOWN_FILES[name]),
                known,
                added,
            )
        else:
            message = f"the Protobuf schema imports {name}, which is not among its references in the registry"
            raise SchemaError(message)
    pool.Add(file)


def _depth(descriptor: Descriptor, inside: frozenset[str]) -> int | None:
    """Return the most levels of nesting of a message; None if there is no limit."""
    if descriptor.full_name in inside or descriptor.full_name.startswith("google.protobuf."):
        return None
    deepest = 0
    for field in descriptor.fields:
        inner = 0
        if field.message_type is not None:
            found = _depth(field.message_type, inside | {descriptor.full_name})
            if found is None:
                return None
            inner = found
        deepest = max(deepest, inner + (1 if _is_repeated(field) else 0))
    return deepest + 1


def _is_repeated(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated)


class _Plans:
    """Makes one converter for each type of message, once."""

    def __init__(self) -> None:
        self._made: dict[str, _Convert] = {}

    def of(self, descriptor: Descriptor) -> _Convert:
        """Return what turns a message of this type into a JSON-like value."""
        name = descriptor.full_name
        if name in self._made:
            return self._made[name]
        special = _special(name)
        if special is not None:
            self._made[name] = special
            return special
        defaults: dict[str, Any] = {}
        converters: dict[str, _Convert | None] = {}

        def convert(message: Message) -> dict[str, Any]:
            document = defaults.copy()
            for field, value in message.ListFields():
                name = field.name
                change = converters[name]
                document[name] = value if change is None else change(value)
            return document

        self._made[name] = convert  # before its fields, which may have this type again
        for field in descriptor.fields:
            converters[field.name] = self._field(field)
            if _is_repeated(field):
                defaults[field.name] = {} if _is_map(field) else []
            elif not field.has_presence:
                change = converters[field.name]
                default = field.default_value
                defaults[field.name] = default if change is None else change(default)
        return convert

    def _field(self, field: FieldDescriptor) -> _Convert | None:
        """Return the converter of a field's value; None where the value is JSON-like already."""
        if _is_map(field):
            assert field.message_type is not None, "a map's entry is a message"
            keys, values = field.message_type.fields_by_name.values()
            of_value = self._single(values) or _same
            of_key = _boolean_key if keys.type == FieldDescriptor.TYPE_BOOL else str
            return lambda found: {of_key(key): of_value(each) for key, each in found.items()}
        single = self._single(field)
        if not _is_repeated(field):
            return single
        return list if single is None else lambda found: [single(each) for each in found]

    def _single(self, field: FieldDescriptor) -> _Convert | None:
        if field.message_type is not None:
            return self.of(field.message_type)
        if field.enum_type is not None:
            names = {value.number: value.name for value in field.enum_type.values}
            return lambda number: names.get(number, number)
        return bytes_text if field.type == FieldDescriptor.TYPE_BYTES else None


def _is_map(field: FieldDescriptor) -> bool:
    kind = field.message_type
    return _is_repeated(field) and kind is not None and bool(kind.GetOptions().map_entry)


def _same(value: Any) -> Any:  # noqa: ANN401 - any value of a field
    return value


def _boolean_key(key: bool) -> str:  # noqa: FBT001 - a key of a map
    return "true" if key else "false"


def _text(message: Any) -> str | None:  # noqa: ANN401 - a well-known message
    try:
        return str(message.ToJsonString())
    except ValueError:  # beyond the year 9999
        return None


def _any(message: Any) -> dict[str, str]:  # noqa: ANN401 - google.protobuf.Any
    return {"@type": message.type_url, "value": bytes_text(message.value)}


def _wrapped(message: Any) -> Any:  # noqa: ANN401 - a wrapper and its value
    value = message.value
    return bytes_text(value) if isinstance(value, bytes) else value


def _decimal(message: Any) -> str | None:  # noqa: ANN401 - confluent.type.Decimal
    return decimal_text(message.value, message.scale)


def _special(name: str) -> _Convert | None:
    """Return the converter of a message that is not an object in JSON."""
    if name in _DECIMAL:
        return _decimal
    if not name.startswith("google.protobuf."):
        return None
    short = name.removeprefix("google.protobuf.")
    if short in ("Timestamp", "Duration", "FieldMask"):
        return _text
    if short in ("Struct", "Value", "ListValue"):
        return json_format.MessageToDict
    if short == "Any":
        return _any
    return _wrapped if short.endswith("Value") else None
