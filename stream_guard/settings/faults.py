"""Says what is wrong with settings: the variable or the file and line, the fault, and the name that was meant."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python

from stream_guard.core.english import did_you_mean
from stream_guard.settings.section import DELIMITER, ENV_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pydantic import ValidationError

__all__ = [
    "ConfigFile",
    "env_name",
    "example_of",
    "explain",
    "explain_malformed_json",
    "explain_unknown_variable",
]

_EXAMPLES: Final[dict[str, str]] = {
    "console.oidc.roles": '{"trust-leads": "lead"}',
    "console.review_exposure_max": '{"*": {"*": 200}}',
    "kafka.topics": '["posts"]',
    "kafka.dead_letter_headers": '["connect"]',
    "kafka.security": '{"protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "username": "u", "password": "p"}',
    "engine.extra": '{"enable_chunked_prefill": true}',
    "cascade.ladder": '[{"effort": "medium", "reasoning_tokens_max": 1024}]',
    "cascade.tiers": '["duplicates", "safeguard"]',
    "actions.limits": '[{"action": "remove", "window": "hour", "actions_max": 100}]',
    "registry.url": "https://registry:8081",
    "review.sample": '{"*": {"safe": 0.01}}',
    "policies.path": "/etc/stream-guard/policies",
    "post.text": "/message/body",
    "post.topics": '{"comments": {"text": "/body"}}',
    "post.where": '{"/kind": ["comment"]}',
    "post.deletes": '{"/type": ["deleted"]}',
    "cascade.classifier": "builtin:toxicity",
}
_PART: Final = r"""(?:"[^"]*"|'[^']*'|[\w-]+)"""
_DOTTED: Final = rf"({_PART}(?:\s*\.\s*{_PART})*)"
_HEADER: Final = re.compile(rf"\s*(\[{{1,2}})\s*{_DOTTED}\s*\]{{1,2}}\s*(?:#.*)?")
_KEY: Final = re.compile(rf"\s*{_DOTTED}\s*=")
_WANTED: Final[dict[str, str]] = {
    "tuple_type": "Input should be a list",
    "list_type": "Input should be a list",
    "dict_type": "Input should be a table",
    "model_type": "Input should be a table",
    "path_type": "Input should be a path, as text",
}
"""In the words of TOML and JSON, where pydantic's are of Python."""
_UNITS: Final = {"ms": "milliseconds", "s": "seconds", "bytes": "bytes", "tokens": "tokens"}
_UNIT: Final = re.compile(rf"_({'|'.join(_UNITS)})(?:_max|_min)?$")
_QUOTED: Final = re.compile("'([^']*)'")
_IN_LIST_MIN: Final = 2  # a section, and a list or a table in it
_SETTING: Final = re.compile(r"\b[a-z_]+(?:\.[a-z_]+)+\b")


@dataclass(slots=True, frozen=True)
class ConfigFile:
    """The file of ``--config``.

    Attributes:
        path: as it was given; None where there is no file.
        text: its content.
        table: its values.
    """

    path: Path | None = None
    text: str = ""
    table: dict[str, Any] = field(default_factory=dict)

    def line_of(self, names: Sequence[str]) -> int | None:
        """Return the line, from 1, that sets a setting or the innermost table around it; None where none does."""
        wanted = tuple(name.casefold() for name in names)
        inside: tuple[str, ...] = ()
        tables: dict[tuple[str, ...], int] = {}  # how many of each list of tables have begun
        found: int | None = None
        depth = 0
        for number, line in enumerate(self.text.splitlines(), 1):
            if header := _HEADER.fullmatch(line):
                here = inside = _placed(_split(header[2]), tables, is_list=header[1] == "[[")
            elif key := _KEY.match(line):
                here = (*inside, *_split(key[1]))
            else:
                continue
            if header and header[1] == "[[" and here[:-1] == wanted and found is None:
                found = number
            if len(here) > depth and here == wanted[: len(here)]:
                found, depth = number, len(here)
        return found


def _split(key: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'").casefold() for part in re.findall(_PART, key))


def _placed(
    names: tuple[str, ...], tables: dict[tuple[str, ...], int], *, is_list: bool
) -> tuple[str, ...]:
    """Return the path of a header, with the index of each table that is in a list of tables."""
    path: tuple[str, ...] = ()
    for name in names[:-1]:
        path = (*path, name)
        if path in tables:
            path = (*path, str(tables[path] - 1))
    path = (*path, names[-1])
    if is_list:
        tables[path] = tables.get(path, 0) + 1
        path = (*path, str(tables[path] - 1))
    return path


def env_name(*path: str) -> str:
    """Return the environment's name of a setting: ``("kafka", "topics")`` -> ``STREAM_GUARD_KAFKA__TOPICS``."""
    return ENV_PREFIX + DELIMITER.join(part.upper() for part in path)


def explain(error: ValidationError, root: type[BaseModel], config: ConfigFile) -> str:
    """Return one line for each fault. No value is shown, because it may be a secret.

    Args:
        error: of the settings.
        root: their class.
        config: the file that some of them come from.
    """
    lines = []
    for item in error.errors(include_url=False):
        path = tuple(str(part) for part in item["loc"])
        what = _WANTED.get(item["type"]) or item["msg"].removeprefix("Value error, ")
        if not path:
            lines.append(_explain_together(what, root, config))
            continue
        place = _place(path, config)
        if item["type"] == "extra_forbidden":
            known = list(_table_at(root, path[:-1]).model_fields)
            meant = did_you_mean(path[-1], known) or _of_another_section(path[-1], root)
            lines.append(f"{place}: unknown setting{meant}; known here: {', '.join(known)}")
            continue
        if item["type"] == "literal_error" and isinstance(item["input"], str):
            # Only a known word is shown.
            what += did_you_mean(item["input"], _QUOTED.findall(what))
        if item["type"].startswith(("int_", "float_")) and (unit := _UNIT.search(path[-1])):
            what += f"; it is a number of {_UNITS[unit[1]]}, without a unit"
        example = None if "for example" in what else example_of(root, path)
        lines.append(f"{place}: {what}" + (f"; for example {example}" if example else ""))
    return "\n".join(lines)


def _explain_together(what: str, root: type[BaseModel], config: ConfigFile) -> str:
    """Return the line of a fault of several settings, with the places of those that are set."""
    named = [tuple(name.split(".")) for name in dict.fromkeys(_SETTING.findall(what))]
    named = [path for path in named if _kind_at(root, path) is not None]
    places = [place for path in named if (place := _set_at(path, config)) is not None]
    if config.path is None and named:
        what += f"; set {' or '.join(env_name(*path) for path in named)}"
    return f"{', '.join(places) or 'settings'}: {what}"


def _of_another_section(name: str, root: type[BaseModel]) -> str:
    found = [f"{section}.{name}" for section, one in _sections(root) if name in one.model_fields]
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def _sections(root: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for section, each in root.model_fields.items():
        if isinstance(each.annotation, type) and issubclass(each.annotation, BaseModel):
            yield section, each.annotation


def explain_unknown_variable(name: str, root: type[BaseModel]) -> str:
    """Return what is wrong with a variable of the environment that names no section."""
    rest = name.upper().removeprefix(ENV_PREFIX)
    section = rest.split(DELIMITER, 1)[0].lower()
    known = list(root.model_fields)
    variables = {
        f"{each}{DELIMITER}{one}".upper() for each, of in _sections(root) for one in of.model_fields
    }
    ends = [each for each in variables if each.endswith(DELIMITER + rest.lstrip("_"))]
    meant = did_you_mean(section, known)
    if DELIMITER not in rest.lstrip("_") and not meant:
        meant = did_you_mean(ends[0] if len(ends) == 1 else rest, variables)
        meant = meant.replace("mean ", f"mean {ENV_PREFIX}")
    return (
        f"{name}: unknown section {section!r}{meant} (known: {', '.join(known)}); "
        f"names look like {env_name('kafka', 'group_id')}"
    )


def explain_malformed_json(root: type[BaseModel], fault: str) -> str:
    """Return one line for each variable of a list or table that is not JSON, or the fault where there is none."""
    lines = []
    for name, value in os.environ.items():
        if not name.upper().startswith(ENV_PREFIX):
            continue
        path = name.upper().removeprefix(ENV_PREFIX).lower().split(DELIMITER.lower())
        kind = _kind_at(root, path)
        if kind is None or not _is_json(kind):
            continue
        try:
            json.loads(value)
        except ValueError as error:
            lines.append(
                f"{'.'.join(path)} ({name}): not JSON: {error}; lists and tables are JSON in the environment, "
                f"for example {name}='{example_of(root, path)}'"
            )
    return "\n".join(lines) or fault


def _is_json(kind: Any) -> bool:  # noqa: ANN401 -- an annotation of any form
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return True
    return bool({tuple, list, dict} & {get_origin(one) for one in (kind, *get_args(kind))})


def _kind_at(root: type[BaseModel], path: Sequence[str]) -> Any:  # noqa: ANN401 -- an annotation of any form
    kind: Any = root
    for part in path:
        found = getattr(kind, "model_fields", {}).get(part)
        if found is None:
            return None
        kind = found.annotation
    return kind


def _place(path: tuple[str, ...], config: ConfigFile) -> str:
    """Return where a value comes from: the variable, else the file and line, and the setting's name."""
    place = _set_at(path, config)
    if place is not None:
        return place
    dotted = ".".join(path)
    return f"{dotted} ({env_name(*path)})" if config.path is None else dotted


def _set_at(path: tuple[str, ...], config: ConfigFile) -> str | None:
    """Return the variable or the file and line that sets a value, and its name; None where it is a default."""
    dotted = ".".join(path)
    variables = {name.upper(): name for name in os.environ}
    for length in range(len(path), 0, -1):
        name = variables.get(env_name(*path[:length]))
        if name is not None and (
            length == len(path) or _holds(os.environ[name], path[length].casefold())
        ):
            return f"{dotted} ({name})"
    below = [name for each, name in variables.items() if each.startswith(env_name(*path, ""))]
    line = config.line_of(path)
    if below and (line is None or len(path) == 1):
        return f"{dotted} ({', '.join(sorted(below))})" if len(path) > 1 else dotted
    return None if line is None else f"{config.path}:{line}: {dotted}"


def _holds(value: str, part: str) -> bool:
    """Return whether the JSON of a variable has this name or index; so it, not the file, is at fault."""
    try:
        document = json.loads(value)
    except ValueError:
        return True
    if isinstance(document, list):
        return part.isdecimal() and int(part) < len(document)
    return not isinstance(document, dict) or part in map(str.casefold, document)


def _table_at(root: type[BaseModel], path: Sequence[str]) -> type[BaseModel]:
    """Return the class of the section at a path; a name or an index in a table or a list is a step, too."""
    kind: Any = root
    for part in path:
        if hasattr(kind, "model_fields"):
            kind = kind.model_fields[part].annotation
        else:  # dict[str, Section] or tuple[Section, ...]
            kind = next(one for one in get_args(kind) if one not in (str, ...))
    found: type[BaseModel] = kind
    return found


def example_of(root: type[BaseModel], path: Sequence[str]) -> str | None:
    """Return an example of a setting as the environment takes it: one of ours, else its default; None without one."""
    if (example := _EXAMPLES.get(".".join(path))) is not None:
        return example
    found: Any = None
    fields: Any = root.model_fields
    for length, part in enumerate(path):
        found = fields.get(part)
        if found is None:  # a name or an index in a list or a table
            return None if length < _IN_LIST_MIN else example_of(root, path[:length])
        fields = getattr(found.annotation, "model_fields", {})
    # Of a section the first setting that has an example.
    for name in fields:
        inner = example_of(root, (*path, name))
        if inner is not None:
            quoted = inner if inner[:1] in '[{"' else json.dumps(inner)
            return f'{{"{name}": {quoted}}}'
    default = None if found is None else found.default
    if default is PydanticUndefined or default in (None, "", ()):
        return None
    return default if isinstance(default, str) else json.dumps(to_jsonable_python(default))
