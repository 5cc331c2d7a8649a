"""Measures what the grammar costs on a GPU, in one call that needs no network and ends by itself.

    # on a GPU node, with pip install '.[gpu,bench]'
    python -m tools.gpu_check --output gpu-check
    # anywhere: the same steps on the CPU in a minute, with a tiny model; its figures say nothing
    python -m tools.gpu_check --dry-run

It makes a model in the shapes of gpt-oss-20b with random weights, starts one engine, and has it write for N posts side
by side, for each N of ``--seqs``:

always    as the first attempt of ``engine.constraint = always``: every token under the policy's grammar.
answer    as the first attempt of ``answer``: reasoning without a grammar, then the answer under one, by two requests.
on_retry  as the first attempt of ``on_retry``: no grammar, each token's probability.
offline   ``LLM.generate`` of vLLM with the same prompts, without grammar and probabilities, in an engine of
          its own; it gets all prompts at once.

Random weights do not end an answer by themselves, so the two sides without a grammar write a fixed number of tokens.
Rates are therefore tokens/s and not posts/s; how many first attempts count, only a trained model can show. ``step ms``
is N tokens over the rate. ``card busy`` is the mean of ``nvidia-smi dmon`` while posts are written. After
``--limit-s`` the check prints what it has and ends its engine and itself.

The longest step is longer than what vLLM captures at its start. Our own warm-up of steps comes first, and the check
prints what it compiled and how long it took. ``compiled`` counts the kernels and graphs that a run compiled after it.

Exit code 1: a missed target. 3: the time was over.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
import psutil

from benchmarks.gpu import write_model
from benchmarks.report import ROOT, Report, Table, finish
from benchmarks.workload import policy_text
from stream_guard.judging.engine.client import VllmClient
from stream_guard.judging.engine.steps import lengths_of, warm_steps
from stream_guard.judging.engine.two_parts import TwoParts
from stream_guard.judging.families.family import Budget
from stream_guard.judging.families.registry import load_family
from stream_guard.policies.policy import make_policy
from stream_guard.records.post import Post
from stream_guard.settings import EngineSettings
from stream_guard.testing.random_model import make_random_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_guard.judging.families.family import Family
    from stream_guard.policies.policy import Policy

SIDES: Final = ("always", "answer", "on_retry", "offline")
OVER: Final = 3
BUDGET: Final = Budget(96, 32)
GAIN_MIN: Final = 1.6
SHARE_MIN: Final = 0.95
BUSY_MIN: Final = 70.0
_CAPTURED: Final = (1, 8, 64, 128, 256, 320, 384, 448, 512, 640, 768, 896, 1_024)
"""Lengths of a step that are captured at the start, so that nothing is compiled while posts are written."""
_LONGER: Final = 512
"""So many tokens more has the longest step."""
_WORDS: Final = ("scooter", "umbrella", "kettle", "museum", "garden", "invoice", "bread", "ticket")


def settings_of(model: Path, seqs: int, *, dry: bool) -> EngineSettings:
    """Return the engine's settings for up to so many posts side by side."""
    extra: dict[str, Any] = {}
    if not dry:
        extra["compilation_config"] = {"cudagraph_capture_sizes": list(_CAPTURED)}
    return EngineSettings(
        model=str(model),
        load_format="dummy",
        constraint="on_retry",
        max_num_seqs=seqs,
        max_model_len=2_048,
        max_num_batched_tokens=64 if dry else max(_CAPTURED[-1], seqs) + _LONGER,
        kv_cache_memory_bytes=(256 << 20) if dry else None,
        extra=extra,
    )


def prompts_of(family: Family, policy: Policy, count: int, run: str) -> list[list[int]]:
    """Return so many prompts under one policy; no two runs share more than the policy's part."""
    prefix = family.prefix(policy, policy.effort)
    texts = (
        f"{run} {number}: my {_WORDS[number % 8]} is next to the {_WORDS[number // 8 % 8]}, and so on."
        for number in range(count)
    )
    return [family.prompt(Post("", text, "", len(text)), prefix) for text in texts]


def params_of(side: str, family: Family, policy: Policy, client: VllmClient, tokens: int) -> Any:
    """Return a side's sampling parameters; without a grammar it writes exactly so many tokens."""
    if side == "answer":
        parts = family.in_parts(policy, BUDGET)
        assert parts is not None, "harmony reasons"
        return client.sampling_params(parts.answer, probabilities=True)
    if side == "always":
        return client.sampling_params(family.sampling(policy, BUDGET), probabilities=True)
    free = family.unconstrained(policy, BUDGET)
    assert free is not None, "harmony has attempts without a grammar"
    sampling = free.sampling._replace(tokens_max=tokens)
    params = client.sampling_params(sampling, probabilities=side == "on_retry")
    params.ignore_eos = True
    return params


@contextlib.contextmanager
def watched_card() -> Iterator[list[float]]:
    """Collect the card's load in % once a second; nothing without ``nvidia-smi``."""
    seen: list[float] = []
    program = shutil.which("nvidia-smi")
    if program is None:
        yield seen
        return
    words = [program, "dmon", "-s", "u", "-d", "1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        reader = threading.Thread(target=_read_loads, args=(process, seen), daemon=True)
        reader.start()
        try:
            yield seen
        finally:
            process.terminate()
            reader.join(timeout=5)


def _read_loads(process: subprocess.Popen[str], seen: list[float]) -> None:
    assert process.stdout is not None
    seen.extend(load for line in process.stdout if (load := load_of(line)) is not None)


def load_of(line: str) -> float | None:
    """Return the load of the first card from a line of ``nvidia-smi dmon -s u``; None from a heading."""
    found = re.match(r"\s*0\s+(\d+)\s", line)
    return float(found[1]) if found else None


def parts_of(side: str, family: Family, policy: Policy, client: VllmClient) -> TwoParts | None:
    """Return the first request of a side that takes two."""
    found = family.in_parts(policy, BUDGET) if side == "answer" else None
    if found is None:
        return None
    thinking = client.sampling_params(found.thinking, probabilities=False)
    return TwoParts(found.opening, thinking, frozenset(found.thinking.stops), found.closing)


async def write_all(
    client: VllmClient,
    prompts: Sequence[list[int]],
    params: Any,
    parts: TwoParts | None,
    at_once: int,
) -> int:
    """Have the engine complete all prompts, so many side by side; return the tokens written."""
    waiting = iter(enumerate(prompts))
    run = f"{time.monotonic_ns()}"

    async def work() -> int:
        tokens = 0
        for number, ids in waiting:
            name = f"{run}-{number}"
            if parts is None:
                tokens += len((await client.generate(list(ids), params, name, None)).ids)
            else:
                both = await parts.complete(client, list(ids), params, name, None)
                tokens += both.output_tokens or 0
        return tokens

    return sum(await asyncio.gather(*(work() for _ in range(at_once))))


async def measure_ours(
    report: Report, model: Path, seqs: Sequence[int], rounds: int, *, dry: bool
) -> None:
    """Run both of our sides at all sizes, by one engine."""
    settings = settings_of(model, max(seqs), dry=dry)
    family, client = load_family(settings), VllmClient(settings)
    policy = make_policy(
        "board", policy_text(0, 300, lambda text: len(family.encode(text))).encode()
    )
    tokens = tokens_each(dry=dry)
    print("starting the engine", flush=True)
    await client.start()
    try:
        await try_lengths(report, client)
        for side in SIDES[:3]:  # compiles the grammar, and caches the policy's part
            params = params_of(side, family, policy, client, tokens)
            parts = parts_of(side, family, policy, client)
            prompts = prompts_of(family, policy, min(seqs), side)
            await write_all(client, prompts, params, parts, min(seqs))
        for count in seqs:
            for side in SIDES[:3]:
                params = params_of(side, family, policy, client, tokens)
                parts = parts_of(side, family, policy, client)
                prompts = prompts_of(family, policy, rounds * count, f"{side} {count}")
                before = await client.compilations()
                with watched_card() as loads:
                    started_s = time.monotonic()
                    written = await write_all(client, prompts, params, parts, count)
                    seconds = time.monotonic() - started_s
                add_run(report, side, count, written, seconds, loads)
                new = (await client.compilations()).since(before)
                report.raw[-1]["compiled"] = new.kernels + new.graphs
    finally:
        await client.close()


async def try_lengths(report: Report, client: VllmClient) -> None:
    """Warm up steps of all lengths; keep and print what that compiled."""
    lengths = lengths_of(client.step_limits)
    before = await client.compilations()
    started_s = time.monotonic()
    await warm_steps(client)
    seconds = time.monotonic() - started_s
    found = (await client.compilations()).since(before)
    row = (len(lengths), found.kernels, found.graphs, seconds)
    columns = ("lengths of a step", "kernels compiled", "graphs compiled", "s")
    report.tables.append(Table("Warm-up of steps", columns, [row]))
    print(f"tried {len(lengths)} lengths of a step in {seconds:.1f} s: {found}", flush=True)


def measure_offline(
    model: Path, seqs: Sequence[int], rounds: int, *, dry: bool
) -> list[dict[str, Any]]:
    """Run ``LLM.generate`` in this process, which holds no other engine."""
    from vllm.inputs import tokens_input

    from benchmarks.offline import make_engine
    from stream_guard.judging.engine.arguments import prepare_environment
    from stream_guard.settings import Settings

    settings = settings_of(model, max(seqs), dry=dry)
    prepare_environment(settings)
    family, client = load_family(settings), VllmClient(settings)
    policy = make_policy(
        "board", policy_text(0, 300, lambda text: len(family.encode(text))).encode()
    )
    params = params_of("offline", family, policy, client, tokens_each(dry=dry))
    engine = make_engine(Settings.model_construct(**_sections(settings)))
    report = Report("gpu-check", "", {}, machine={})
    for count in (min(seqs), *seqs):  # the first run warms up
        prompts = [
            tokens_input(ids)
            for ids in prompts_of(family, policy, rounds * count, f"offline {count}")
        ]
        with watched_card() as loads:
            started_s = time.monotonic()
            outputs = engine.generate(prompts, params, use_tqdm=False)
            seconds = time.monotonic() - started_s
        written = sum(len(output.outputs[0].token_ids) for output in outputs)
        add_run(report, "offline", count, written, seconds, loads)
    return report.raw[1:]


def _sections(engine: EngineSettings) -> dict[str, Any]:
    from stream_guard.settings import TelemetrySettings

    return {"engine": engine, "telemetry": TelemetrySettings()}


def tokens_each(*, dry: bool) -> int:
    """Return how many tokens a post gets on the sides without a grammar."""
    return 12 if dry else 140


def add_run(
    report: Report, side: str, seqs: int, written: int, seconds: float, loads: Sequence[float]
) -> None:
    """Keep and print one run."""
    rate = written / seconds
    busy = sum(loads) / len(loads) if loads else None
    report.raw.append(
        {"side": side, "seqs": seqs, "tokens": written, "seconds": seconds, "rate": rate}
        | {"step_ms": 1_000 * seqs / rate, "busy": busy}
    )
    print(f"{side}, {seqs} side by side: {rate:,.0f} tokens/s", flush=True)


def fill_report(report: Report) -> None:
    """Add table and targets for the raw runs."""
    rates = {(run["side"], run["seqs"]): run["rate"] for run in report.raw}
    report.tables.append(
        Table(
            "Tokens written",
            (
                "side by side",
                "side",
                "tokens/s",
                "step ms",
                "card busy %",
                "compiled",
                "of offline",
            ),
            [
                (
                    *(run["seqs"], run["side"], run["rate"], run["step_ms"], run["busy"]),
                    run.get("compiled"),
                    _ratio(run["rate"], rates.get(("offline", run["seqs"]))),
                )
                for run in report.raw
            ],
        )
    )
    for seqs in sorted({run["seqs"] for run in report.raw}):
        always, free, offline = (
            rates.get((side, seqs)) for side in ("always", "on_retry", "offline")
        )
        name = f"{seqs} side by side"
        report.aim(f"on_retry / always, {name}", _ratio(free, always), at_least=GAIN_MIN)
        report.aim(f"on_retry / offline, {name}", _ratio(free, offline), at_least=SHARE_MIN)
        busy = next(
            (r["busy"] for r in report.raw if (r["side"], r["seqs"]) == ("on_retry", seqs)), None
        )
        report.aim(f"card busy in on_retry, %, {name}", busy, at_least=BUSY_MIN)


def _ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over is not None and under else None


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seqs", type=int, nargs="+", default=[256, 1_024], help="posts side by side"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="posts of a run, in multiples of those side by side"
    )
    parser.add_argument(
        "--limit-s", type=float, default=540, help="time after which it ends (default 540)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="a tiny model on any machine, to try the script"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("bench-output"),
        help="where the report's folder is made",
    )
    parser.add_argument("--offline", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.dry_run:
        options.seqs, options.rounds = [2, 4], 1
    return options


def end_all(report: Report, output: Path) -> None:
    """Report the runs so far, then end the child processes and this one."""
    report.complaints.append("the time was over before all sides had run")
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    fill_report(report)
    finish(report, output)
    sys.stdout.flush()
    os._exit(OVER)


def run_offline_apart(model: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run ``LLM.generate`` in a process of its own, so that it finds the card's memory free."""
    result = model / "offline.json"
    words = [sys.executable, "-m", "tools.gpu_check", "--offline", str(model)]
    words += ["--rounds", str(options.rounds), "--output", str(result)]
    words += ["--seqs", *map(str, options.seqs), *(["--dry-run"] if options.dry_run else [])]
    subprocess.run(words, cwd=ROOT, check=True)
    runs: list[dict[str, Any]] = orjson.loads(result.read_bytes())
    return runs


def main(words: list[str] | None = None) -> int:
    """Measure; return the exit code."""
    options = parse(words)
    os.environ["HF_HUB_OFFLINE"] = "1"
    if options.offline is not None:
        runs = measure_offline(options.offline, options.seqs, options.rounds, dry=options.dry_run)
        options.output.write_bytes(orjson.dumps(runs))
        return 0
    shown = {"seqs": options.seqs, "rounds": options.rounds, "limit_s": options.limit_s}
    report = Report(
        "gpu-check", "What the grammar costs on this card.", shown, quick=options.dry_run
    )
    timer = threading.Timer(options.limit_s, end_all, (report, options.output))
    timer.daemon = True
    timer.start()
    with tempfile.TemporaryDirectory(prefix="stream-guard-gpu-check-") as place:
        model = Path(place) / "model"
        if options.dry_run:
            make_random_model(model)
        else:
            model.mkdir()
            write_model(model)
        asyncio.run(measure_ours(report, model, options.seqs, options.rounds, dry=options.dry_run))
        report.raw += run_offline_apart(model, options)
    timer.cancel()
    fill_report(report)
    return finish(report, options.output)


if __name__ == "__main__":
    sys.exit(main())
