"""structlog, set up once: JSON for machines, colours on a terminal, and both from the standard logging too.

What it must never do: carry text of a post.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import orjson
import structlog

if TYPE_CHECKING:
    from stream_guard.settings import TelemetrySettings


def configure_logs(settings: TelemetrySettings) -> None:
    """Send every line to stderr in the chosen format."""
    console = settings.log_format == "console" or (
        settings.log_format == "auto" and sys.stderr.isatty()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    final: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if console
        else [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer(_dumps)]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    # aiokafka's own account of each join and fetch is of no use at three in the morning.
    logging.getLogger("aiokafka").setLevel(
        "WARNING" if settings.log_level == "info" else settings.log_level.upper()
    )


def _dumps(value: Any, **options: Any) -> str:  # noqa: ANN401 - structlog's own signature
    return orjson.dumps(
        value, default=options.get("default", repr), option=orjson.OPT_NON_STR_KEYS
    ).decode()
