"""Measures the host's work in one step of vLLM by part, before and after: ``make bench-step``.

The model is a stand-in: its forward pass costs nothing, and it writes one well-formed answer for every post, with
128 tokens of reasoning. vLLM's own scheduler, input batch, sampler, grammar and output processor run unchanged, in one
process. The vocabulary has 201,088 tokens, as gpt-oss has. The arithmetic over it, which a card does itself, is left
out. Each step makes one token for each of N posts; only steps in which all N posts write are counted. The figures are
means over these steps, of the median of each step over the rounds. ``ipc`` is the time to encode and decode the step's
outputs as vLLM does between its processes. ``waiting`` counts the steps that vLLM must hold back until the tokens of
the step before are known, since a request in them has a grammar; asynchronous scheduling gains nothing in such a step.

Sides: ``before``: every token under the grammar, and each sent when it is written, as vLLM does by itself. ``always``,
``answer`` and ``on_retry``, the first attempts of ``engine.constraint``: outputs are held until the completion ends.
``bare``: as ``on_retry``, without any token's probability.

``--profile FOLDER`` also has py-spy watch each side, writes its stacks, and prints the functions with most own time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks.figures import ratios
from benchmarks.report import OUTPUT, Report, Table, finish
from benchmarks.sides import add_report_options
from benchmarks.stand_in import (
    PROMPT_TOKENS,
    THOUGHT_TOKENS,
    Steps,
    answer_ids,
    make_engine,
    write_stand_in,
)
from stream_guard.judging.engine.client import VllmClient
from stream_guard.judging.families.family import Budget
from stream_guard.judging.families.harmony.family import Harmony
from stream_guard.judging.families.harmony.tokenizer import load_tokenizer
from stream_guard.policies.policy import make_policy
from stream_guard.settings import EngineSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_guard.policies.policy import Policy

SIDES: Final = ("before", "always", "answer", "on_retry", "bare")
PARTS: Final = (
    *("schedule", "inputs", "runner", "grammar", "sampler", "logprobs", "output"),
    *("ipc", "front end", "other"),
)
ROUNDS: Final = 3
TARGET_POSTS: Final = 256
RATIO_MIN: Final = 2.0
RATE: Final = 400
"""Samples/s of a profile."""
SHOWN: Final = 10
"""Functions of a profile that are printed."""
_BUDGET: Final = Budget(2 * THOUGHT_TOKENS, 32)
_POLICY: Final = b"""# Board rules (#B1)

## Sales (S1 - Sales)
- S1.a Selling a kettle
- S1.b Buying one

Output: `VIOLATES`
"""


class Requests:
    """Makes the requests of a side, one after another: tokens before those that are written, and their parameters.

    Args:
        family: of the model.
        policy: under which all posts are.
        client: makes sampling parameters.
        script: the completion of every post.
    """

    def __init__(
        self, family: Harmony, policy: Policy, client: VllmClient, script: Sequence[int]
    ) -> None:
        self._family = family
        self._policy = policy
        self._client = client
        self._script = script

    def of(self, side: str) -> list[tuple[list[int], Any]]:
        """Return what follows the prompt, and the sampling parameters, of each request for a post."""
        make, family, policy = self._client.sampling_params, self._family, self._policy
        if side in ("before", "always"):
            return [([], make(family.sampling(policy, _BUDGET), probabilities=True))]
        if side == "answer":
            parts = family.in_parts(policy, _BUDGET)
            begun = list(parts.opening)
            answer = [*begun, *self._script[len(begun) :][:THOUGHT_TOKENS], *parts.closing]
            return [
                (begun, make(parts.thinking, probabilities=False)),
                (answer, make(parts.answer, probabilities=True)),
            ]
        free = family.unconstrained(policy, _BUDGET)
        return [([], make(free.sampling, probabilities=side == "on_retry"))]


def mean_ms(rounds: Sequence[Sequence[dict[str, float]]]) -> dict[str, float]:
    """Return each part's mean over the steps, in ms; of each step, the median over the rounds."""
    names = {*PARTS, *(name for steps in rounds for step in steps for name in step)}
    # A request that gets its grammar a step late takes a step more; steps side by side are still of like size.
    steps = list(zip(*rounds, strict=False))
    if not steps:
        return {}
    return {
        name: 1_000
        * statistics.mean(statistics.median(one.get(name, 0.0) for one in same) for same in steps)
        for name in names
    }


def host_ms(parts: dict[str, float]) -> float:
    """Return the host's work in a step: all parts but the stand-in."""
    return sum(ms for name, ms in parts.items() if name in PARTS)


def measure(report: Report, posts: Sequence[int], rounds: int, profiles: Path | None) -> None:
    """Run all sides at all sizes, and fill the report."""
    with tempfile.TemporaryDirectory(prefix="stream-guard-step-") as place:
        write_stand_in(Path(place))
        settings = EngineSettings(
            model=place,
            load_format="dummy",
            max_num_seqs=max(posts),
            max_model_len=512,
            max_num_batched_tokens=max(2_048, (PROMPT_TOKENS + 2 * THOUGHT_TOKENS) * max(posts)),
            kv_cache_memory_bytes=2 << 30,
            # One thread does everything, so that each part has its own time.
            extra={"async_scheduling": False},
        )
        tokenizer = load_tokenizer(settings)
        family, client = Harmony(tokenizer, settings.prompt_date), VllmClient(settings)
        policy = make_policy("board", _POLICY)
        script = answer_ids(tokenizer, policy)
        requests = Requests(family, policy, client, script)
        sides = Sides(make_engine(settings), requests, script)
        for count in posts:
            measure_size(report, sides, count, rounds, profiles)
    fill_report(report)


def measure_size(
    report: Report, sides: Sides, count: int, rounds: int, profiles: Path | None
) -> None:
    """Run all sides in turn with so many posts, once to warm up and then so many times; keep what came of it."""
    runs: dict[str, list[Run]] = {side: [] for side in SIDES}
    stacks: dict[str, list[str]] = {side: [] for side in SIDES}
    for number in range(rounds + 1):
        for side in SIDES:
            with profiled(profiles if number else None, f"{side}-{count}-{number}") as seen:
                runs[side].append(sides.run(side, count, number))
            stacks[side] += seen
    for side, (_, *measured) in runs.items():
        if not all(run.well for run in measured):
            report.complaints.append(f"{side}, {count} posts: another answer than its own")
        parts, last = mean_ms([run.steps for run in measured]), measured[-1]
        report.raw.append(
            {"side": side, "posts": count, "parts": parts, "host": host_ms(parts)}
            | {
                "steps": len(last.steps),
                "waiting": sum(last.waiting),
                "all steps": len(last.waiting),
            }
        )
        print(f"{count} posts, {side}: {host_ms(parts):.2f} ms of host a step", flush=True)
        if stacks[side]:
            report.tables.append(profile_table(f"{side}, {count} posts", stacks[side]))


class Run(NamedTuple):
    """One run of a side.

    Attributes:
        steps: s of each part, for each step in which all posts wrote.
        waiting: of all steps, whether vLLM had to know the tokens of the step before.
        well: whether every post got its completion.
    """

    steps: list[dict[str, float]]
    waiting: list[bool]
    well: bool


class Sides:
    """Runs sides on one engine.

    Args:
        engine: vLLM's ``LLM``, with its core in this process.
        requests: makes the requests of a side.
        script: the completion of every post.
    """

    def __init__(self, engine: Any, requests: Requests, script: list[int]) -> None:
        self._engine = engine
        self._requests = requests
        self._script = script
        self._steps = Steps(engine, script)

    def run(self, side: str, count: int, number: int) -> Run:
        """Let so many posts write side by side. No two runs with other numbers have the same posts."""
        from vllm.inputs import tokens_input

        self._steps.begin(count, holds=side != "before")
        for behind, params in self._requests.of(side):
            # Token 100 and its neighbours are ordinary; each prompt begins with a number of its own.
            prompts = [
                tokens_input([100 + number, 200 + post, *[300] * (PROMPT_TOKENS - 2), *behind])
                for post in range(count)
            ]
            outputs = self._engine.generate(prompts, params, use_tqdm=False)
        written = ([*behind, *output.outputs[0].token_ids] for output in outputs)
        well = all(ids == self._script for ids in written)
        return Run(self._steps.found, self._steps.waiting, well)


@contextlib.contextmanager
def profiled(folder: Path | None, name: str) -> Iterator[list[str]]:
    """Have py-spy watch this process meanwhile; the list then has its stacks. It stays empty without a folder."""
    stacks: list[str] = []
    if folder is None:
        yield stacks
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = folder.resolve() / f"{name}.raw"
    program = str(Path(sys.executable).with_name("py-spy"))
    words = [program, "record", "--format", "raw", "--rate", str(RATE), "--nonblocking"]
    words += ["--pid", str(os.getpid()), "--output", str(file)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield stacks
        finally:
            process.send_signal(signal.SIGINT)  # it then writes its file
            process.wait(timeout=60)
    stacks += file.read_text("utf-8").splitlines()


def own_times(stacks: Sequence[str]) -> list[tuple[str, float]]:
    """Return the functions with most own time, and their shares of all samples.

    Args:
        stacks: lines of py-spy's raw format: frames from the outermost to the innermost, and a count.
    """
    counts: Counter[str] = Counter()
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        counts[re.sub(r":\d+\)$", ")", frames.rpartition(";")[2])] += int(count)
    total = counts.total()
    return [(name, count / total) for name, count in counts.most_common(SHOWN)]


def profile_table(name: str, stacks: Sequence[str]) -> Table:
    """Return a profile's functions with most own time as a table."""
    return Table(f"Own time, {name}", ("function", "share"), own_times(stacks))


def fill_report(report: Report) -> None:
    """Add the tables and targets for the raw runs."""
    shown = [
        (run["posts"], run["side"], *(run["parts"].get(part, 0.0) for part in PARTS), run["host"])
        for run in report.raw
    ]
    steps = [
        (run["posts"], run["side"], run["steps"], run["waiting"], run["all steps"])
        for run in report.raw
    ]
    report.tables[:0] = [
        Table("Mean ms of a step", ("posts", "side", *PARTS, "host"), shown),
        Table("Steps", ("posts", "side", "counted", "waiting", "all"), steps),
    ]
    by_side = {
        side: [run["host"] for run in report.raw if run["side"] == side] for side in SIDES[:-1]
    }
    sizes = [run["posts"] for run in report.raw if run["side"] == "before"]
    gains = {side: ratios(by_side["before"], by_side[side]) for side in SIDES[1:-1]}
    report.tables.insert(
        1,
        Table(
            "Host ms of before / side",
            ("posts", *gains),
            list(zip(sizes, *gains.values(), strict=True)),
        ),
    )
    for size, ratio in zip(sizes, gains["on_retry"], strict=True):
        if size == TARGET_POSTS:
            report.aim(f"host ms of before / on_retry, {size} posts", ratio, at_least=RATIO_MIN)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--posts",
        type=int,
        nargs="+",
        default=[64, 256, 1_024],
        help="posts that write side by side (default 64 256 1024)",
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"runs of a side (default {ROUNDS})"
    )
    parser.add_argument(
        "--profile", type=Path, metavar="FOLDER", help="watch each side by py-spy; write its stacks"
    )
    add_report_options(parser)
    options = parser.parse_args(words)
    if options.quick:
        options.posts, options.rounds = [4], 1
    return options


def main() -> int:
    """Measure; return the exit code."""
    options = parse()
    report = Report(
        "step",
        "The host's work in one step of vLLM, by part.",
        {"posts": options.posts, "rounds": options.rounds},
        quick=options.quick,
    )
    measure(report, options.posts, options.rounds, options.profile)
    return finish(report, options.output or OUTPUT)


if __name__ == "__main__":
    sys.exit(main())
