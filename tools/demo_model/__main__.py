"""``python -m tools.demo_model``: makes the demo model from nothing, and measures it.

``train`` goes on from where it was cut; ``export`` writes what was trained as a model's folder; ``evaluate`` measures a
folder by the product's own path, and ends with 1 where a figure misses its target.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tools.demo_model.targets import missed

if TYPE_CHECKING:
    from collections.abc import Sequence

SHIPPED: Final = Path("stream_guard") / "demo" / "model"
WORK: Final = Path(".cache") / "demo-model"
EVALUATION_SEED: Final = 20_251


def _train(options: argparse.Namespace) -> int:
    from tools.demo_model.training import Plan, train

    plan = replace(
        Plan(seed=options.seed, processes=options.processes), steps=options.steps or Plan().steps
    )
    train(options.work, plan)
    return 0


def _export(options: argparse.Namespace) -> int:
    from tokenizers import Tokenizer

    from tools.demo_model.export import export, load_network

    checkpoint = options.work / "checkpoint.pt"
    if not checkpoint.exists():
        sys.stderr.write(f"{checkpoint} is not there; train first\n")
        return 2
    tokenizer = Tokenizer.from_file(str(options.work / "tokenizer.json"))
    count = export(load_network(checkpoint), tokenizer, options.model)
    sys.stdout.write(f"{options.model}: {count:,} weights\n")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    # A model this small gains nothing from threads, and they wait for each other on a busy machine.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    from rich.console import Console
    from rich.progress import Progress

    from stream_guard.settings import EngineSettings
    from tools.demo_model.evaluate import judge_cases, make_cases, report

    settings = EngineSettings(
        model=str(options.model), max_model_len=2048, max_num_seqs=48, reasoning_tokens_max=96
    )
    cases = make_cases(options.seed, policies=options.policies, posts=8, flips=2)
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("judging", total=len(cases))
        outcomes = asyncio.run(
            judge_cases(settings, cases, lambda done, _: bar.update(task, completed=done))
        )
    found = report(outcomes, options.seed)
    for figure in found.figures:
        sys.stdout.write(
            f"{figure.name:<36} {figure.value:8.4f}  [{figure.low:.4f}, {figure.high:.4f}]  of {figure.count}\n"
        )
    for wrong in found.wrong[: options.show]:
        sys.stdout.write(
            f"wrong: {wrong.case.kind} {wrong.case.rule_id or ''} judged {wrong.decision} "
            f"{', '.join(wrong.rule_ids)} ({wrong.rationale}): {wrong.case.post.text}\n"
        )
    if options.json is not None:
        options.json.write_text(json.dumps(found.as_dict(), indent=2) + "\n", encoding="utf-8")
    complaints = missed(found.figures)
    for complaint in complaints:
        sys.stdout.write(f"missed: {complaint}\n")
    return 1 if complaints else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo_model", description=__doc__)
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("train", help="train, or go on training")
    train.add_argument(
        "--seed", type=int, default=0, help="of everything that is drawn (default 0)"
    )
    train.add_argument("--steps", type=int, default=0, help="instead of the plan's number")
    train.add_argument("--processes", type=int, default=2, help="one a core (default 2)")
    train.set_defaults(run=_train)
    export = commands.add_parser("export", help="write the trained model's folder")
    export.set_defaults(run=_export)
    evaluate = commands.add_parser("evaluate", help="measure a model by the product's own path")
    evaluate.add_argument("--seed", type=int, default=EVALUATION_SEED, help="of policies and posts")
    evaluate.add_argument(
        "--policies", type=int, default=150, help="held-out policies (default 150)"
    )
    evaluate.add_argument("--show", type=int, default=10, help="wrong answers to show (default 10)")
    evaluate.add_argument("--json", type=Path, help="where the figures go as JSON")
    evaluate.set_defaults(run=_evaluate)
    for command in (train, export):
        command.add_argument("--work", type=Path, default=WORK, help=f"default {WORK}")
    for command in (export, evaluate):
        command.add_argument("--model", type=Path, default=SHIPPED, help=f"default {SHIPPED}")
    options = parser.parse_args(arguments)
    code: int = options.run(options)
    return code


if __name__ == "__main__":
    sys.exit(main())
