"""Reads the service's metrics over HTTP for the live view, summed over labels.

Where the service does not answer, the view says so; nothing is raised.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import aiohttp

from stream_guard.telemetry.metrics_page import summed

if TYPE_CHECKING:
    from stream_guard.cli.views.live import LiveView

EVERY_S: Final = 2.0
_TIMEOUT_S: Final = 5.0


async def follow(url: str, view: LiveView) -> None:
    """Read the metrics at an address every two seconds and show them in a view, until cancelled."""
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            try:
                async with session.get(url) as answer:
                    answer.raise_for_status()
                    view.show_metrics(summed(await answer.text()))
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                view.show_metrics_error(
                    f"metrics: none at {url} ({type(error).__name__}); see --metrics"
                )
            await asyncio.sleep(EVERY_S)
