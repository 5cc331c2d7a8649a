"""Reads YAML, checks it against a model, and reports every error with its line. Pure.

It builds plain data only, in time linear in the text. Aliases are rejected, because they can unfold
a small file into gigabytes.

Positions are our own over PyYAML. ruamel.yaml would take twice the time, accept aliases and tags,
read a bare ``y`` as true, and recurse without a limit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from stream_guard.core.english import did_you_mean
from stream_guard.core.errors import PolicyError
from stream_guard.policies.text import decode_utf8

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

__all__ = ["YAML_BYTES_MAX", "YAML_VALUES_MAX", "Document", "Position", "read_yaml"]

YAML_BYTES_MAX: Final = 1_048_576
YAML_VALUES_MAX: Final = 20_000
"""Keys, values, lists and mappings of a file; their number sets time and memory of a reading."""
_FAULTS_MAX: Final = 50
"""Faults of a file that one message names."""
_DEPTH_MAX: Final = 20

Position = tuple[int, int]
"""Line and column, both from 1."""
_Path = tuple[str | int, ...]
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(slots=True, frozen=True)
class Document:
    """The data of a YAML file, with the position of each part.

    Attributes:
        source: the file's name in messages.
        value: dicts, lists, strings, numbers, booleans, None; None where the file is empty.
        positions: by the path of keys and indexes. The position of a mapping's entry is that of its key.
    """

    source: str
    value: Any
    positions: Mapping[_Path, Position]

    def position(self, path: _Path) -> Position:
        """Return the position of this path, or of its nearest parent."""
        for length in range(len(path), -1, -1):
            if (position := self.positions.get(path[:length])) is not None:
                return position
        return (1, 1)

    def error(self, path: _Path, message: str) -> PolicyError:
        """Return an error that names the file, the line and the path."""
        line, _ = self.position(path)
        place = ".".join(str(part) for part in path)
        return PolicyError(f"{self.source}:{line}: {place + ': ' if place else ''}{message}")

    def check(self, model: type[_Model]) -> _Model:
        """Return the data as the model.

        Raises:
            PolicyError: the data does not fit; the message has a line for each error.
        """
        if not isinstance(self.value, dict):
            fields = ", ".join(model.model_fields)
            raise self.error((), f"must be a mapping with some of the keys: {fields}")
        try:
            return model.model_validate(self.value)
        except ValidationError as error:
            details = error.errors(include_url=False)
            faults = [self._describe(detail, model) for detail in details[:_FAULTS_MAX]]
            if (more := len(details) - _FAULTS_MAX) > 0:
                faults.append(f"{self.source}: {more:,} more faults; correct these first")
            raise PolicyError("\n".join(dict.fromkeys(faults))) from error

    def _describe(self, detail: ErrorDetails, model: type[BaseModel]) -> str:
        path = tuple(detail["loc"])
        # The path of a failed union names its members, which are not in the file: drop them.
        while path and path not in self.positions:
            path = path[:-1] if detail["type"] != "missing" else path
            if detail["type"] == "missing":
                break
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields)
            known = f" (at the top the keys are: {known})" if len(path) == 1 else ""
            meant = did_you_mean(str(path[-1]), _keys_beside(model, path)) if path else ""
            message = f"unknown key{meant}; remove it or correct its spelling{known}"
        elif detail["type"] in ("literal_error", "enum") and isinstance(detail["input"], str):
            message += did_you_mean(detail["input"], re.findall("'([^']*)'", message))
        elif detail["type"] == "string_type" and isinstance(detail["input"], (bool, int, float)):
            message = f"is {detail['input']!r} to YAML, not text; put it in quotes"
        return str(self.error(path, message))


def _keys_beside(model: type[BaseModel], path: _Path) -> list[str]:
    """Return the keys that a model knows where an unknown one stands; none where no one model is there."""
    kinds: list[Any] = [model]
    for part in path[:-1]:
        inner: list[Any] = []
        for kind in kinds:
            field = getattr(kind, "model_fields", {}).get(part)
            found = [field.annotation] if field is not None else list(get_args(kind))
            inner += [each for one in found for each in (one, *get_args(one))]
        kinds = [kind for kind in inner if hasattr(kind, "model_fields") or get_args(kind)]
    return [name for kind in kinds for name in getattr(kind, "model_fields", {})]


def read_yaml(content: bytes, source: str) -> Document:
    """Read a YAML file's bytes.

    Raises:
        PolicyError: the file is too large, too deep, not UTF-8 or not YAML; or has too many values, a
            duplicate key, an alias or a tag.
    """
    if len(content) > YAML_BYTES_MAX:
        message = f"{source}: over {YAML_BYTES_MAX:,} bytes; shorten it"
        raise PolicyError(message)
    text = decode_utf8(content, source)
    try:
        _check_events(text, source)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        positions: dict[_Path, Position] = {(): (1, 1)}
        value = None if node is None else _construct(node, (), positions, source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        message = (
            f"{source}:{line}: not valid YAML: {error.problem or error.context}; "
            "check indentation, colons and quotes"
        )
        raise PolicyError(message) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code_point = f"U+{ord(text[error.position]):04X}"
        message = f"{source}:{line}: contains {code_point}, which YAML forbids; remove it"
        raise PolicyError(message) from error
    return Document(source, value, positions)


def _check_events(text: str, source: str) -> None:
    """Reject, without recursion, what would make the document deep or large."""
    depth = values = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            message = f"{source}:{line}: aliases (*name) are not allowed; repeat the value"
            raise PolicyError(message)
        if getattr(event, "tag", None) is not None:
            message = f"{source}:{line}: tags (!name) are not allowed; write plain values"
            raise PolicyError(message)
        if isinstance(event, yaml.NodeEvent):
            values += 1
        if values > YAML_VALUES_MAX:
            message = (
                f"{source}:{line}: over {YAML_VALUES_MAX:,} keys and values; remove some (in rules.yaml, "
                "long lists of terms belong in a file under terms_files)"
            )
            raise PolicyError(message)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEPTH_MAX:
            message = f"{source}:{line}: nested deeper than {_DEPTH_MAX}; flatten it"
            raise PolicyError(message)


_CONSTRUCTOR: Final = yaml.constructor.SafeConstructor()


def _construct(  # any YAML value
    node: yaml.Node, path: _Path, positions: dict[_Path, Position], source: str
) -> Any:  # noqa: ANN401
    positions.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
    if isinstance(node, yaml.SequenceNode):
        return [
            _construct(item, (*path, i), positions, source) for i, item in enumerate(node.value)
        ]
    if not isinstance(node, yaml.MappingNode):
        return _scalar(node, source)
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
        if not isinstance(key_node, yaml.ScalarNode):
            message = f"{source}:{line}: a key must be plain text"
            raise PolicyError(message)
        key = _scalar(key_node, source)
        if key in mapping:
            message = f"{source}:{line}: duplicate key {key!r}; keep one"
            raise PolicyError(message)
        positions[*path, key] = (line, column)
        mapping[key] = _construct(value_node, (*path, key), positions, source)
    return mapping


def _scalar(node: yaml.Node, source: str) -> Any:  # noqa: ANN401 - any YAML scalar
    try:
        return _CONSTRUCTOR.construct_object(node)
    except ValueError as error:  # a date such as 2024-99-99
        line = node.start_mark.line + 1
        message = f"{source}:{line}: {node.value!r} cannot be read ({error}); quote it"
        raise PolicyError(message) from error
