"""Says what pydantic found wrong, without the values, which may be text of a post or a secret. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = ["field_faults"]

_FAULTS_MAX: Final = 3


def field_faults(error: ValidationError, whole: str = "value") -> str:
    """Return the first faults, each behind the path of its field.

    Args:
        error: of a model whose field names are ours: they are quoted.
        whole: what to call the document itself.
    """
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    if faults[0]["type"] == "json_invalid":
        return "not JSON"
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or whole}: {fault['msg']}"
        for fault in faults[:_FAULTS_MAX]
    )
