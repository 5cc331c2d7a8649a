"""What every section of the settings has in common."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict

ENV_PREFIX: Final = "STREAM_GUARD_"
DELIMITER: Final = "__"


class Section(BaseModel):
    """A section: unknown names are errors, and the values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
