"""Starts the processes of a benchmark: each side is its own, under a watchdog, with settings in its environment.

All sides read the same ``STREAM_GUARD_*`` variables; only the compared part differs. Settings of the caller's
environment are not passed on, and no process is left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import signal
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
import orjson
import psutil

from benchmarks.report import ROOT, Report, finish
from benchmarks.traffic import EndedError
from stream_guard.core.errors import StreamGuardError
from stream_guard.testing import start_broker
from stream_guard.testing.broker.child import start_module

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from types import TracebackType

    from benchmarks.traffic import Topics
    from stream_guard.testing import Broker

START_S: Final = 900.0
STOP_S: Final = 90.0
_LOOK_S: Final = 0.05
_TAIL_BYTES: Final = 3_000
_ENGINE: Final = ("EngineCore", "forkserver")
"""Names of the engine's own process: under ``vllm serve``, and under us."""


class SideError(Exception):
    """A side did not start, or did not end well."""


@dataclass(frozen=True)
class Sizes:
    """The engine, alike for all sides.

    Attributes:
        model: its folder.
        seqs: requests that the engine runs side by side.
        cache_mib: of its KV cache; 0 leaves it to vLLM, which takes a share of the GPU's memory.
        model_len: longest prompt and answer together, in tokens.
        rationale_tokens: longest rationale, in tokens.
        load_format: vLLM's; ``dummy`` makes random weights.
        extra: further engine arguments, as JSON.
    """

    model: Path
    seqs: int = 32
    cache_mib: int = 256
    model_len: int = 4_096
    rationale_tokens: int = 32
    load_format: str = "auto"
    extra: str = "{}"

    def shown(self) -> dict[str, Any]:
        """Return it for a report's header."""
        return asdict(self) | {"model": self.model.name}


def default_model() -> Path:
    """Return the demo model's folder."""
    from stream_guard.cli.demo import MODEL

    return Path(MODEL).resolve()


def _json_object(text: str) -> str:
    """Return an option's text if it is a JSON object. Raises argparse's own error if it is not."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        message = f"not an object in JSON: {text}"
        raise argparse.ArgumentTypeError(message)
    return text


def add_engine_extra(parser: argparse.ArgumentParser) -> None:
    """Add the option for engine arguments that have no option of their own."""
    parser.add_argument(
        "--engine-extra",
        type=_json_object,
        default="{}",
        metavar="JSON",
        help="further engine arguments for all sides, as in engine.extra (default none)",
    )


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every benchmark: a smoke run, and where its report goes."""
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a smoke run of a few posts: counts are checked, targets are not judged",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("bench-output"),
        help="where the report's folder is made (default bench-output)",
    )


def add_options(parser: argparse.ArgumentParser, *, seqs: int = 32, cache_mib: int = 256) -> None:
    """Add the options that all benchmarks with an engine have."""
    parser.add_argument(
        "--model",
        type=Path,
        default=default_model(),
        help="folder of the model that all sides serve (default: the demo model)",
    )
    parser.add_argument(
        "--seqs",
        type=int,
        default=seqs,
        help=f"requests that the engine runs side by side (default {seqs})",
    )
    parser.add_argument(
        "--cache-mib",
        type=int,
        default=cache_mib,
        help=f"the engine's KV cache, in MiB; 0: what vLLM takes by itself (default {cache_mib})",
    )
    parser.add_argument(
        "--load-format",
        default="auto",
        help="vLLM's load_format; dummy makes random weights in the model's shape (default auto)",
    )
    add_engine_extra(parser)
    add_report_options(parser)


def sizes_of(options: argparse.Namespace) -> Sizes:
    """Return the sizes that were asked for."""
    return Sizes(
        options.model.resolve(),
        options.seqs,
        options.cache_mib,
        load_format=options.load_format,
        extra=options.engine_extra,
    )


def environment(
    bootstrap: str, topics: Topics, policies: Path, sizes: Sizes, **more: str
) -> dict[str, str]:
    """Return a side's environment: every post to the model, once, and nothing left out under pressure.

    Args:
        bootstrap: brokers.
        topics: of the run.
        policies: their folder.
        sizes: of the engine.
        more: further settings by section and name, such as ``BATCHING__SIZE_MAX="1"``.
    """
    settings = {
        "KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "KAFKA__TOPICS": orjson.dumps([topics.posts]).decode(),
        "KAFKA__GROUP_ID": f"group-{topics.posts}",
        "KAFKA__VERDICT_TOPIC": topics.verdicts,
        "KAFKA__DEAD_LETTER_TOPIC": topics.dead,
        "POLICIES__PATH": str(policies),
        "POLICIES__RELOAD": "false",
        "ENGINE__MODEL": str(sizes.model),
        "ENGINE__MAX_NUM_SEQS": str(sizes.seqs),
        "ENGINE__MAX_MODEL_LEN": str(sizes.model_len),
        "ENGINE__LOAD_FORMAT": sizes.load_format,
        "ENGINE__EXTRA": sizes.extra,
        "ENGINE__RATIONALE_TOKENS_MAX": str(sizes.rationale_tokens),
        "ENGINE__REQUEST_TIMEOUT_S": "600",
        # All sides ask for the same; benchmarks.engine_feed compares the others with it.
        "ENGINE__CONSTRAINT": "always",
        "CASCADE__TIERS": '["safeguard"]',
        "CASCADE__LADDER": "[]",
        # A full topic is what saturates us: nothing may be spared because posts have waited.
        "CASCADE__PRESSURE_EFFORT_AGE_S_MAX": "1000000",
        "HTTP__HOST": "127.0.0.1",
        "HTTP__PORT": "0",
        "TELEMETRY__LOG_FORMAT": "json",
        **more,
    }
    if sizes.cache_mib:
        settings.setdefault("ENGINE__KV_CACHE_MEMORY_BYTES", str(sizes.cache_mib << 20))
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("STREAM_GUARD_")}
    return {
        **inherited,
        # Models this small gain nothing from threads, and the other core is for the front end.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        **{f"STREAM_GUARD_{name}": value for name, value in settings.items()},
    }


class Side:
    """A Python module that runs as a process while the context is open.

    Args:
        words: the module and its arguments.
        variables: its whole environment.
        log: the file that keeps its output.
    """

    def __init__(self, words: Sequence[str], variables: Mapping[str, str], log: Path) -> None:
        self._words = list(words)
        self._variables = dict(variables)
        self._log = log
        self._exit = contextlib.ExitStack()
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        log = self._exit.enter_context(self._log.open("ab"))
        self._process = await start_module(
            self._words, self._variables, self._exit, cwd=ROOT, stdout=log, stderr=log
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._process
        assert process is not None, "entered"
        try:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # kill the rest
            await process.wait()
        finally:
            self._exit.close()

    def alive(self) -> bool:
        """Return whether it runs."""
        return self._process is not None and self._process.returncode is None

    def used(self) -> tuple[float, int]:
        """Return CPU seconds and resident bytes of the module's process; zeros before it is there."""
        assert self._process is not None, "entered"
        try:
            children = psutil.Process(self._process.pid).children()
            child = children[0] if children else None
            if child is None:
                return 0.0, 0
            times = child.cpu_times()
            return times.user + times.system, child.memory_info().rss
        except psutil.NoSuchProcess:
            return 0.0, 0

    def cpu_s(self) -> tuple[float, float]:
        """Return CPU seconds so far of the side's front end and of its engine, each with all its threads."""
        assert self._process is not None, "entered"
        front = engine = 0.0
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    words = " ".join(process.cmdline())
                    if any(sign in words for sign in _ENGINE):
                        engine += times.user + times.system
                    else:
                        front += times.user + times.system
        return front, engine

    async def until_ready(self, url: str, limit_s: float = START_S) -> None:
        """Return once a page answers with 200.

        Raises:
            SideError: not within ``limit_s``, or the process ended before.
        """
        started_s = time.monotonic()
        async with aiohttp.ClientSession() as session:
            while not await _answers(session, url):
                if not self.alive():
                    raise SideError(self._told("ended before it was ready"))
                if time.monotonic() - started_s > limit_s:
                    raise SideError(self._told(f"was not ready within {limit_s:g} s"))
                await asyncio.sleep(_LOOK_S)

    async def stop(self, limit_s: float = STOP_S) -> None:
        """Let it end in good order. Raises SideError if it does not, or if its exit code is not 0."""
        assert self._process is not None, "entered"
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        await self.until_ended(limit_s)

    async def until_ended(self, limit_s: float) -> None:
        """Wait for its own end. Raises SideError if it does not come, or if the exit code is not 0."""
        assert self._process is not None, "entered"
        try:
            async with asyncio.timeout(limit_s):
                code = await self._process.wait()
        except TimeoutError:
            raise SideError(self._told(f"did not end within {limit_s:g} s")) from None
        if code:
            raise SideError(self._told(f"ended with {code}"))

    def _told(self, what: str) -> str:
        tail = self._log.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace")
        return f"{' '.join(self._words)} {what}; the end of its log:\n{tail}"


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=5)) as answer:
            return answer.status == 200  # noqa: PLR2004 - OK
    except (aiohttp.ClientError, TimeoutError):
        return False


def run_bench(
    report: Report, output: Path, work: Callable[[Broker, Path], Coroutine[Any, Any, None]]
) -> int:
    """Run a benchmark with its own broker and folder, write the report, and return the exit code.

    If a side does not run to its end, the results so far are still written, and the code is 1.
    """
    with (
        tempfile.TemporaryDirectory(prefix="stream-guard-bench-") as place,
        start_broker() as broker,
    ):
        report.machine["broker"] = broker.description
        try:
            asyncio.run(work(broker, Path(place)))
        except (SideError, EndedError, StreamGuardError) as error:
            report.complaints.append(f"did not run to its end: {error}")
    return finish(report, output)


def gauge_of(page: str, name: str) -> float:
    """Return the sum of a metric over its labels on a page of metrics; 0 if it is missing."""
    pattern = rf"^{re.escape(name)}(?:\{{[^\n]*\}})? (\S+)$"
    return sum(float(value) for value in re.findall(pattern, page, re.MULTILINE))


async def page_of(url: str) -> str:
    """Return a page's text."""
    async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(url) as answer:
        return await answer.text()


async def until_full(
    url: str, seqs: int, stop: asyncio.Event
) -> tuple[float | None, list[tuple[float, float]]]:
    """Ask an engine how many requests it runs, until it is full; return when, and all that it said.

    Args:
        url: of its page of metrics.
        seqs: how many make it full.
        stop: set when the run is over.

    Returns:
        Unix time in ms, or None if it never was full; and (Unix time in ms, requests) of each look.
    """
    looks: list[tuple[float, float]] = []
    async with aiohttp.ClientSession() as session:
        while not stop.is_set():
            async with session.get(url) as answer:
                running = gauge_of(await answer.text(), "vllm:num_requests_running")
            looks.append((time.time() * 1_000, running))
            if running >= seqs:
                return looks[-1][0], looks
            await asyncio.sleep(_LOOK_S)
    return None, looks
