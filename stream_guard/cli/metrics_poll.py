"""Reads the service's metrics over HTTP for the live view, summed over labels.

Where the service does not answer, the view says so; nothing is raised.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from stream_guard.cli.views.live import LiveView

EVERY_S: Final = 2.0
_TIMEOUT_S: Final = 5.0
_LARGEST: Final = frozenset(
    {"stream_guard_oldest_unjudged_age_seconds", "stream_guard_pressure_level"}
)
"""For these the largest value is shown, not the sum."""


def summed(page: str) -> dict[str, float]:
    """Return the values of our metrics by name. Raises ValueError where the page holds no metrics."""
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            name = sample.name
            if not name.startswith("stream_guard_"):
                continue
            before = values.get(name, 0.0)
            values[name] = max(before, sample.value) if name in _LARGEST else before + sample.value
    return values


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
