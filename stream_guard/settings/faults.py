"""Says what is wrong with settings: the variable or the file and line, the fault, and the name that was meant."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

from pydantic import BaseModel

from stream_guard.settings.section import DELIMITER, ENV_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from pydantic import ValidationError

__all__ = ["ConfigFile", "did_you_mean", "env_name", "explain", "explain_malformed_json"]

_EXAMPLES: Final[dict[str, str]] = {
    "kafka.topics": '["posts"]',
    "kafka.security": '{"protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "username": "u", "password": "p"}',
    "engine.extra": '{"enable_chunked_prefill": true}',
    "cascade.ladder": '[{"effort": "medium", "reasoning_tokens_max": 1024}]',
    "cascade.tiers": '["duplicates", "safeguard"]',
    "cascade.uncertain_band": "[0.2, 0.8]",
    "registry.url": "https://registry:8081",
    "policies.path": "/etc/stream-guard/policies",
    "post.text": "/message/body",
    "cascade.classifier": "builtin:toxicity",
}
_PART: Final = r"""(?:"[^"]*"|'[^']*'|[\w-]+)"""
_DOTTED: Final = rf"({_PART}(?:\s*\.\s*{_PART})*)"
_HEADER: Final = re.compile(rf"\s*\[{{1,2}}\s*{_DOTTED}\s*\]{{1,2}}\s*(?:#.*)?")
_KEY: Final = re.compile(rf"\s*{_DOTTED}\s*=")
_WANTED: Final[dict[str, str]] = {
    "tuple_type": "Input should be a list",
    "list_type": "Input should be a list",
    "dict_type": "Input should be a table",
    "model_type": "Input should be a table",
}
"""In the words of TOML and JSON, where pydantic's are of Python."""


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
        wanted = tuple(name for name in names if not name.isdigit())
        inside: tuple[str, ...] = ()
        found: int | None = None
        depth = 0
        for number, line in enumerate(self.text.splitlines(), 1):
            if header := _HEADER.fullmatch(line):
                here = inside = _split(header[1])
            elif key := _KEY.match(line):
                here = (*inside, *_split(key[1]))
            else:
                continue
            if len(here) > depth and here == wanted[: len(here)]:
                found, depth = number, len(here)
        return found


def _split(key: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(_PART, key))


def env_name(*path: str) -> str:
    """Return the environment's name of a setting: ``("kafka", "topics")`` -> ``STREAM_GUARD_KAFKA__TOPICS``."""
    return ENV_PREFIX + DELIMITER.join(part.upper() for part in path)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean NAME?)`` for the known name that is most similar, or nothing."""
    found = get_close_matches(name.lower(), list(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def explain(error: ValidationError, root: type[BaseModel], config: ConfigFile) -> str:
    """Return one line for each fault. No value is shown, because it may be a secret.

    Args:
        error: of the settings.
        root: their class.
        config: the file that some of them come from.
    """
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        path = tuple(str(part) for part in item["loc"])
        place = _place(path, config)
        if item["type"] == "extra_forbidden":
            known = list(_table_at(root, path[:-1]).model_fields)
            meant = did_you_mean(path[-1], known)
            lines.append(f"{place}: unknown setting{meant}; known here: {', '.join(known)}")
            continue
        what = _WANTED.get(item["type"]) or item["msg"].removeprefix("Value error, ")
        dotted = ".".join(path)
        example = next(
            (f"; for example {v}" for k, v in _EXAMPLES.items() if dotted.startswith(k)), None
        )
        lines.append(f"{place}: {what}{example or _default_example(root, path)}")
    return "\n".join(lines)


def explain_malformed_json(root: type[BaseModel], fault: str) -> str:
    """Return one line for each variable of a list or table that is not JSON, or the fault where there is none."""
    lines = []
    for name, value in os.environ.items():
        if not name.upper().startswith(ENV_PREFIX):
            continue
        path = name.upper().removeprefix(ENV_PREFIX).lower().split(DELIMITER.lower())
        kind = _kind_at(root, path)
        if kind is None or not (
            {tuple, list, dict} & {get_origin(one) for one in (kind, *get_args(kind))}
        ):
            continue
        try:
            json.loads(value)
        except ValueError as error:
            example = _EXAMPLES.get(".".join(path), _EXAMPLES["kafka.topics"])
            lines.append(
                f"{'.'.join(path)} ({name}): not JSON: {error}; lists and tables are JSON in the environment, "
                f"for example {name}='{example}'"
            )
    return "\n".join(lines) or fault


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
    dotted = ".".join(path) or "settings"
    variables = {name.upper(): name for name in os.environ}
    for length in range(len(path), 0, -1):
        if (name := variables.get(env_name(*path[:length]))) is not None:
            return f"{dotted} ({name})"
    line = config.line_of(path)
    below = env_name(*path[:1]) + DELIMITER
    if line is not None and not (
        len(path) == 1 and any(name.startswith(below) for name in variables)
    ):
        return f"{config.path}:{line}: {dotted}"
    # Several settings are at fault together, or a default is.
    return f"{dotted} ({env_name(*path)})" if path and config.path is None else dotted


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


def _default_example(root: type[BaseModel], path: tuple[str, ...]) -> str:
    field_found: Any = None
    fields: Any = root.model_fields
    for part in path:
        field_found = fields.get(part)
        if field_found is None:
            return ""
        fields = getattr(field_found.annotation, "model_fields", {})
    if field_found is None or isinstance(field_found.default, BaseModel):
        return ""
    return "" if field_found.default in (None, "", ()) else f"; for example {field_found.default}"
