"""Lists the model families, and chooses the family of ``engine.model`` from its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_guard.core.errors import EngineError
from stream_guard.judging.families.harmony.family import HARMONY
from stream_guard.judging.families.model_files import read_config

if TYPE_CHECKING:
    from stream_guard.judging.families.family import Family, FamilyKind
    from stream_guard.settings import EngineSettings

__all__ = ["FAMILIES", "family_kind", "load_family", "supported_config"]

FAMILIES: Final[tuple[FamilyKind, ...]] = (HARMONY,)


def supported_config(settings: EngineSettings) -> tuple[dict[str, Any], FamilyKind]:
    """Return the model's ``config.json`` and its family.

    Raises:
        EngineError: the configuration is missing or invalid, or no family supports the model's architecture.
    """
    config = read_config(settings)
    architectures = config["architectures"]
    for kind in FAMILIES:
        if not set(architectures).isdisjoint(kind.architectures):
            return config, kind
    supported = sorted(name for kind in FAMILIES for name in kind.architectures)
    message = (
        f"engine.model: {settings.model} has the architecture {', '.join(architectures) or 'none'}; "
        f"supported: {', '.join(supported)}"
    )
    raise EngineError(message)


def family_kind(settings: EngineSettings) -> FamilyKind:
    """Return the family of ``engine.model``. Raises EngineError as :func:`supported_config`."""
    return supported_config(settings)[1]


def load_family(settings: EngineSettings) -> Family:
    """Read the tokenizer of ``engine.model``, as its family does.

    Raises:
        EngineError: the model is missing, unsupported, or has an unusable tokenizer.
    """
    return family_kind(settings).load(settings)
