"""Configures structlog and the standard logging: JSON lines, or colours on a terminal.

Each JSON line names a trace: the record's if the line is about a record, else the current span's, else the run's. No
line holds text of a post, so tracebacks show no variables.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from opentelemetry import trace
from structlog.tracebacks import ExceptionDictTransformer

from stream_guard.core.secrets import mask_fields, mask_text
from stream_guard.core.visible_text import visible_line
from stream_guard.telemetry.output import capture_output
from stream_guard.telemetry.repeats import RepeatFilter
from stream_guard.telemetry.run_context import run_context

if TYPE_CHECKING:
    from stream_guard.settings import TelemetrySettings


def configure_logs(settings: TelemetrySettings, *, whole_output: bool = False) -> None:
    """Send every log line to stderr in the configured format.

    Args:
        settings: the section.
        whole_output: with JSON lines, whether what other code writes to stdout and stderr becomes JSON lines, too.
    """
    console = settings.log_format == "console" or (
        settings.log_format == "auto" and sys.stderr.isatty()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_trace,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    final: list[structlog.typing.Processor] = (
        [
            _drop_trace,
            _mask_names,
            _make_visible,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
            _mask_forms,
        ]
        if console
        else [
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            _mask_names,
            structlog.processors.JSONRenderer(_dumps),
            _mask_forms,
        ]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    stream = capture_output() if whole_output and not console else sys.stderr
    handler = logging.StreamHandler(stream)
    handler.addFilter(RepeatFilter(settings.log_repeats_per_minute_max))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    # aiokafka logs each join and fetch at INFO, which hides other lines. At DEBUG it logs the bytes that it sends, and
    # with them posts.
    wanted = {"debug": "INFO", "info": "WARNING"}.get(settings.log_level, settings.log_level)
    logging.getLogger("aiokafka").setLevel(wanted.upper())


def _add_trace(
    _logger: object, _method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    context = trace.get_current_span().get_span_context()
    known = context if context.is_valid else run_context()
    if known is not None and "trace_id" not in line:
        line["trace_id"] = f"{known.trace_id:032x}"
        line["span_id"] = f"{known.span_id:016x}"
    return line


def _drop_trace(
    _logger: object, _method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Leave out the ids of traces, which nobody follows from a terminal by hand."""
    for name in ("trace_id", "span_id"):
        line.pop(name, None)
    return line


def _mask_names(
    _logger: object, _method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    masked: structlog.typing.EventDict = mask_fields(line)
    return masked


def _make_visible(
    _logger: object, _method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return {
        name: visible_line(value) if isinstance(value, str) else value
        for name, value in line.items()
    }


def _mask_forms(_logger: object, _method: str, line: Any) -> str:  # noqa: ANN401 - the rendered line
    return mask_text(line)


def _dumps(value: Any, **options: Any) -> str:  # noqa: ANN401 - structlog's own signature
    return orjson.dumps(
        value, default=options.get("default", repr), option=orjson.OPT_NON_STR_KEYS
    ).decode()
