"""The tiers between known answers and the model: where one is added."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.tiers.classifier import ClassifierTier
from stream_guard.tiers.rules import RulesTier

if TYPE_CHECKING:
    from stream_guard.settings import Settings
    from stream_guard.tiers import CheapTier

__all__ = ["make_tiers"]


def make_tiers(settings: Settings) -> list[CheapTier]:
    """Return the tiers between ``duplicates`` and the model.

    Raises:
        SettingsError: ``cascade.classifier`` names what cannot be used.
    """
    cascade = settings.cascade
    return [
        RulesTier(),
        ClassifierTier(cascade.classifier, threads=cascade.classifier_threads),
    ]
