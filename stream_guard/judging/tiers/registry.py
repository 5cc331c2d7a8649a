"""Builds the tiers between ``duplicates`` and the model. The only module that names them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.judging.tiers.classifier.tier import ClassifierTier
from stream_guard.judging.tiers.rules import RulesTier

if TYPE_CHECKING:
    from stream_guard.judging.tiers.tier import CheapTier
    from stream_guard.settings import Settings


def make_tiers(settings: Settings) -> list[CheapTier]:
    """Return the tiers between ``duplicates`` and the model.

    Raises:
        SettingsError: ``cascade.classifier`` names no usable classifier.
    """
    cascade = settings.cascade
    return [
        RulesTier(),
        ClassifierTier(cascade.classifier, threads=cascade.classifier_threads),
    ]
