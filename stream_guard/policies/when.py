"""The conditions of rules and lanes in ``routes.yaml``, as their authors write them. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, ClassVar, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)

from stream_guard.core.json_pointer import JsonPointer
from stream_guard.policies.route_facts import Condition

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["STRICT", "Topic", "When", "is_pointer"]

# What Kafka allows in a topic's name, and what a glob adds to it.
_TOPIC: Final = re.compile(r"[A-Za-z0-9._*?\[\]!-]{1,249}")
STRICT: Final = ConfigDict(extra="forbid", strict=True, frozen=True)


def _is_topic(name: str) -> str:
    if _TOPIC.fullmatch(name) is None:
        message = (
            "not a topic's name or glob: Latin letters, digits, '.', '_', '-', '*', '?' and [..]"
        )
        raise ValueError(message)
    return name


def is_pointer(pointer: str) -> str:
    """Return a JSON pointer as it is written elsewhere. Raises ValueError."""
    if not pointer:
        raise ValueError(
            "an empty JSON pointer is the whole post; write for example /author/country"
        )
    return JsonPointer(pointer).text


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


Topic = Annotated[StrictStr, AfterValidator(_is_topic)]
_Pointer = Annotated[StrictStr, AfterValidator(is_pointer)]
_Texts = Annotated[
    list[Annotated[StrictStr, Field(min_length=1)]], BeforeValidator(_listed), Field(min_length=1)
]
_Topics = Annotated[list[Topic], BeforeValidator(_listed), Field(min_length=1)]
_Scalar = StrictStr | StrictBool | StrictInt | StrictFloat | None
_Scalars = Annotated[list[_Scalar], BeforeValidator(_listed), Field(min_length=1)]


class When(BaseModel):
    """Conditions that must all hold; of a list, one value must match."""

    model_config = STRICT
    EMPTY: ClassVar[str] = "has no condition; use default for every post"

    topic: _Topics | None = None
    header: dict[StrictStr, _Texts] = Field(default_factory=dict)
    field: dict[_Pointer, _Scalars] = Field(default_factory=dict)
    language: _Texts | None = None
    tenant: _Texts | None = None

    @model_validator(mode="after")
    def _some(self) -> When:
        if self.is_empty():
            raise ValueError(self.EMPTY)
        return self

    def is_empty(self) -> bool:
        """Return whether there is no condition."""
        return not any(self.conditions())

    def conditions(self) -> Iterator[Condition]:
        """Yield the conditions, cheapest first."""
        if self.topic:
            yield Condition("topic", tuple(self.topic))
        if self.language:
            yield Condition("language", tuple(self.language))
        if self.tenant:
            yield Condition("tenant", tuple(self.tenant))
        for name, texts in self.header.items():
            yield Condition("header", tuple(texts), name)
        for pointer, scalars in self.field.items():
            yield Condition("field", tuple(scalars), pointer)
