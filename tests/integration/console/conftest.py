"""A real browser for the tests of the console: one for each test, since each has an event loop of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.console import open_browser

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Chromium, headless. It is fetched from npm once; where that fails, the tests fail and say why."""
    async with open_browser() as opened:
        yield opened
