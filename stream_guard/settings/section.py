"""The base class of all sections."""

from __future__ import annotations

from typing import Any, Final, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

ENV_PREFIX: Final = "STREAM_GUARD_"
DELIMITER: Final = "__"


class Section(BaseModel):
    """A section: unknown names are errors, and values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_number(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - of any field
        """Reject true and false where a number is wanted; pydantic takes them for 1 and 0."""
        if isinstance(value, bool) and info.field_name is not None:
            kind = cls.model_fields[info.field_name].annotation
            kinds = get_args(kind) or (kind,)
            if bool not in kinds and (int in kinds or float in kinds):
                raise ValueError("Input should be a number, not true or false")
        return value
