"""Says what is wrong with settings: the variable or the file and line, the fault, and the name that was meant."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, get_args

from pydantic import BaseModel

from stream_guard.settings.section import DELIMITER, ENV_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from pydantic import ValidationError

__all__ = ["ConfigFile", "did_you_mean", "env_name", "explain"]

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
_HEADER: Final = re.compile(r"\s*\[{1,2}\s*([^\[\]]+?)\s*\]{1,2}\s*(?:#.*)?")
_KEY: Final = re.compile(r"""\s*([\w."' -]+?)\s*=""")


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
    return tuple(part.strip().strip("\"'") for part in key.split("."))


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
        what = item["msg"].removeprefix("Value error, ")
        dotted = ".".join(path)
        example = next(
            (f"; for example {v}" for k, v in _EXAMPLES.items() if dotted.startswith(k)), None
        )
        lines.append(f"{place}: {what}{example or _default_example(root, path)}")
    return "\n".join(lines)


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
