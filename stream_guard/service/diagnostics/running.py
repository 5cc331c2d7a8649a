"""Reads the metrics of the service that runs on this machine, for ``stream-guard doctor``. Changes nothing."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Final

from prometheus_client.parser import text_string_to_metric_families

from stream_guard.core.english import count_of
from stream_guard.service.diagnostics.topic_advice import Advice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_guard.settings import HttpSettings

__all__ = ["compilation"]

_TIMEOUT_S: Final = 2.0
_METRIC: Final = "stream_guard_engine_compilations_total"


def compilation(settings: HttpSettings) -> Iterator[Advice]:
    """Yield whether the running service compiled anything while it judged posts; nothing if no service answers.

    Args:
        settings: where it serves its metrics.
    """
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compared, not bound
    counts = _counts(f"http://{host}:{settings.port}/metrics") if settings.port else None
    if counts is None:
        return
    kernels, graphs = (int(counts.get(kind, 0)) for kind in ("kernel", "graph"))
    if not kernels and not graphs:
        yield Advice("compilation", "ok", "nothing was compiled while posts were judged")
        return
    yield Advice(
        "compilation",
        "warning",
        f"the engine compiled {count_of(kernels, 'kernel')} and {count_of(graphs, 'graph')} while posts were judged; "
        "each stops all posts until it is ready",
        "leave engine.warm_steps unset on a GPU, and set TRITON_CACHE_DIR to a folder that is kept between starts",
    )


def _counts(url: str) -> dict[str, float] | None:
    """Return the metric's values by kind; None if nothing answers, or it has no such metric."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - http alone
            page = answer.read().decode()
        samples = [
            sample
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == _METRIC
        ]
    except (OSError, ValueError, urllib.error.URLError):
        return None
    return {sample.labels["kind"]: sample.value for sample in samples} or None
