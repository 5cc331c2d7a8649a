"""The base class of all sections."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict

ENV_PREFIX: Final = "STREAM_GUARD_"
DELIMITER: Final = "__"


class Section(BaseModel):
    """A section: unknown names are errors, and values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
