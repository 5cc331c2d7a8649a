"""``python -m tools.demo_model``: trains the demo model from scratch, and measures it.

``train`` continues an interrupted run. ``export`` writes the trained network as a model's folder. ``evaluate`` measures
a folder by the product's own path, and exits with 1 if a figure misses its target. ``card`` writes the model's card
from the measurements. ``make`` does all four.
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

SHIPPED: Final = Path("stream_guard") / "cli" / "demo" / "model"
WORK: Final = Path(".cache") / "demo-model"
EVALUATION_SEED: Final = 20_251
MEASURED: Final = "evaluation.json"
MADE: Final = "made.json"


def _train(options: argparse.Namespace) -> int:
    from tools.demo_model.training import Plan, further, train

    plan = further(str(options.start)) if options.start else Plan()
    plan = replace(plan, seed=options.seed, processes=options.processes)
    train(options.work, replace(plan, steps=options.steps or plan.steps))
    return 0


def _export(options: argparse.Namespace) -> int:
    from tokenizers import Tokenizer

    from tools.demo_model.export import export, load_network, training_record

    checkpoint = options.work / "checkpoint.pt"
    if not checkpoint.exists():
        sys.stderr.write(f"{checkpoint} is not there; train first\n")
        return 2
    tokenizer = Tokenizer.from_file(str(options.work / "tokenizer.json"))
    count = export(load_network(checkpoint), tokenizer, options.model)
    made = training_record(checkpoint) | {"weights": count}
    (options.work / MADE).write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"{options.model}: {count:,} weights after step {made['steps']}\n")
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
        model=str(options.model), max_model_len=2_048, max_num_seqs=48, reasoning_tokens_max=96
    )
    cases = make_cases(options.evaluation_seed, policies=options.policies, posts=8, flips=2)
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("judging", total=len(cases))
        outcomes = asyncio.run(
            judge_cases(settings, cases, lambda done, _: bar.update(task, completed=done))
        )
    found = report(outcomes, options.evaluation_seed)
    for figure in found.figures:
        sys.stdout.write(
            f"{figure.name:<36} {figure.value:8.4f}  [{figure.low:.4f}, {figure.high:.4f}]  of {figure.count}\n"
        )
    for wrong in found.wrong[: options.show]:
        case = wrong.case
        sys.stdout.write(
            f"wrong: {'native' if case.native else 'structured'} {case.kind} {case.rule_id or ''} "
            f"judged {wrong.decision} {', '.join(wrong.rule_ids)} ({wrong.rationale}): {case.post.text}\n"
        )
    options.work.mkdir(parents=True, exist_ok=True)
    measured = {"seed": options.evaluation_seed, "policies": options.policies, **found.as_dict()}
    (options.work / MEASURED).write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    complaints = missed(found.figures)
    for complaint in complaints:
        sys.stdout.write(f"missed: {complaint}\n")
    return 1 if complaints else 0


def _card(options: argparse.Namespace) -> int:
    from tools.demo_model.card import write_card

    read = {}
    for name, command in ((MEASURED, "evaluate"), (MADE, "export")):
        path = options.work / name
        if not path.exists():
            sys.stderr.write(f"{path} is not there; {command} first\n")
            return 2
        read[name] = json.loads(path.read_text(encoding="utf-8"))
    again = options.again / MEASURED if options.again else None
    if again is not None and not again.exists():
        sys.stderr.write(f"{again} is not there; evaluate the other model first\n")
        return 2
    other = None if again is None else json.loads(again.read_text(encoding="utf-8"))
    write_card(options.model, read[MEASURED], read[MADE], options.remark, other)
    sys.stdout.write(f"{options.model / 'README.md'}\n")
    return 0


def _make(options: argparse.Namespace) -> int:
    """Do all four; a missed target is told by the exit code, and by the card."""
    for step in (_train, _export):
        if code := step(options):
            return code
    measured = _evaluate(options)
    return _card(options) or measured


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo_model", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, run, help_text in (
        ("train", _train, "train, or go on training"),
        ("export", _export, "write the trained model's folder"),
        ("evaluate", _evaluate, "measure a model by the product's own path"),
        ("card", _card, "write the model's card from the measurements"),
        ("make", _make, "train, export, evaluate, and write the card"),
    ):
        command = commands.add_parser(name, help=help_text, description=__doc__)
        command.set_defaults(run=run)
        command.add_argument("--work", type=Path, default=WORK, help=f"default {WORK}")
        if name in ("train", "make"):
            command.add_argument("--seed", type=int, default=0, help="of training (default 0)")
            command.add_argument(
                "--steps", type=int, default=0, help="instead of the plan's number"
            )
            command.add_argument(
                "--from",
                dest="start",
                type=Path,
                help="a model's folder, to train on from its weights",
            )
            command.add_argument("--processes", type=int, default=2, help="one a core (default 2)")
        if name != "train":
            command.add_argument("--model", type=Path, default=SHIPPED, help=f"default {SHIPPED}")
        if name in ("card", "make"):
            command.add_argument("--remark", default="", help="to add on how it was made")
            command.add_argument(
                "--again", type=Path, help="the --work of a model made once more, to set beside"
            )
        if name in ("evaluate", "make"):
            command.add_argument(
                "--evaluation-seed", type=int, default=EVALUATION_SEED, help="of policies and posts"
            )
            command.add_argument(
                "--policies",
                type=int,
                default=600,
                help="held out (default 600; with 150 the intervals of flips are 5 points wide on each side)",
            )
            command.add_argument("--show", type=int, default=10, help="wrong answers (default 10)")
    options = parser.parse_args(arguments)
    code: int = options.run(options)
    return code


if __name__ == "__main__":
    sys.exit(main())
