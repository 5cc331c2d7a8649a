"""The demo: a real broker, the real engine, posts in, an edited policy, other verdicts out; ends by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Final

MODEL: Final = Path(__file__).parent / "model"
"""The demo model's folder: it follows small policies of plain words. No moderation model; see its card."""
POLICIES: Final = Path(__file__).parent / "policies"
"""Policies of the size that the demo model can follow."""
