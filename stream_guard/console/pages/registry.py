"""The pages, in the order of the navigation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_guard.console.pages.audit.page import AUDIT
from stream_guard.console.pages.letters.page import LETTERS
from stream_guard.console.pages.now.page import NOW
from stream_guard.console.pages.policies.page import POLICIES
from stream_guard.console.pages.review.page import REVIEW
from stream_guard.console.pages.verdicts.page import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.console.page import Page

__all__ = ["PAGES"]

PAGES: Final[Sequence[Page]] = (NOW, VERDICTS, REVIEW, POLICIES, LETTERS, AUDIT)
