"""Rooms that need no Kafka client, no engine and no SDK of traces come up without them, in a fresh process.

import-linter holds who imports whom; what is looked at here is what an import really loads.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

LIGHT = (
    "core.errors",
    "judging.archive.entry",
    "judging.contract",
    "judging.families.harmony.answer",
    "judging.families.harmony.prompt",
    "judging.reasoning_event",
    "judging.tiers.cascade",
    "judging.tiers.pressure",
    "judging.verdict",
    "offline.audit.backtest",
    "offline.audit.replay",
    "offline.export.dsa",
    "policies.policy",
    "policies.routing",
    "policies.store",
    "policies.taxonomy",
    "records.dead_letter_event",
    "records.post",
    "records.verdict_event",
    "service.health.stall",
    "settings",
    "stream.admission",
    "stream.batching",
    "stream.exactly_once",
    "stream.offsets",
    "stream.ports",
    "testing",
)
KEPT_OUT = ("aiokafka", "vllm", "opentelemetry", "torch", "transformers")
EVALUATION = ("sklearn", "statsmodels", "scipy", "pandas", "vllm", "torch")

# One process for all: each module is imported afresh, after the package's modules were forgotten. A module of the
# three that was loaded once stays in sys.modules, so the first that brings it in is named.
_PROGRAM = """
import importlib, sys
for name in sys.argv[2:]:
    for loaded in [m for m in sys.modules if m.partition(".")[0] == "stream_guard"]:
        del sys.modules[loaded]
    importlib.import_module("stream_guard." + name)
    for out in sys.argv[1].split(","):
        if out in sys.modules:
            sys.exit(f"stream_guard.{name} imports {out}")
"""


def imports(*modules: str, kept_out: tuple[str, ...] = KEPT_OUT) -> str:
    """Return what a fresh process says of these modules; empty where all is well."""
    command = [sys.executable, "-c", _PROGRAM, ",".join(kept_out), *modules]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr.strip()


def test_no_light_module_imports_kafka_the_engine_or_the_sdk_of_traces() -> None:
    assert imports(*LIGHT) == ""


def test_the_console_starts_without_the_libraries_of_evaluations_and_without_an_engine() -> None:
    assert imports("console.server", "cli.console", kept_out=EVALUATION) == ""
    assert imports("offline.evaluation.report", kept_out=EVALUATION).endswith("imports sklearn")


@pytest.mark.parametrize(
    ("module", "brings"),
    [("kafka.source", "aiokafka"), ("stream.tracing.record_tracer", "opentelemetry")],
)
def test_the_check_sees_an_import(module: str, brings: str) -> None:
    assert imports(module) == f"stream_guard.{module} imports {brings}"
