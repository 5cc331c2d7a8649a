"""``python -m tests.soak``: run soaks, print the tables, exit 1 where a promise was broken."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from pathlib import Path
from typing import Annotated, Final, get_args

import typer
from rich.console import Console

from stream_guard.settings import EngineSettings
from tests.soak import report
from tests.soak.checker import STALL_S_MAX, Findings, check, objections
from tests.soak.facts import History
from tests.soak.members import ROOT
from tests.soak.soak import MODES, Options, engine_environment, soak
from tests.soak.takeover import TAKEOVER_S_MAX

ENGINES: Final = ("scripted", "vllm", "demo")
CONSTRAINTS: Final[tuple[str, ...]] = get_args(EngineSettings.model_fields["constraint"].annotation)
DEMO: Final = {
    "STREAM_GUARD_ENGINE__REASONING_TOKENS_MAX": "32",
    # Most of its rationales are shorter: a longer one does not count without the grammar.
    "STREAM_GUARD_ENGINE__RATIONALE_TOKENS_MAX": "48",
}
"""What the demo model needs besides, so that most of its answers count in every mode, and some reasoning is cut."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_console = Console(stderr=True, highlight=False)


def _choose(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        message = f"{value!r} is none of {', '.join(choices)}"
        raise typer.BadParameter(message, param_hint=option)


@app.command()
def run(  # noqa: PLR0913 - the options of a command line
    seeds: Annotated[
        str, typer.Option("--seeds", "--seed", help="One, or several: 1,2,3")
    ] = "1,2,3",
    posts: Annotated[int, typer.Option(min=1, help="At least, over all seeds")] = 100_000,
    faults: Annotated[int, typer.Option(min=0, help="Over all seeds")] = 100,
    mode: Annotated[str, typer.Option(help=f"{', '.join(MODES)}, or both")] = MODES[0],
    engine: Annotated[
        str, typer.Option(help="scripted; or vllm: a tiny random model; or demo: the demo model")
    ] = "scripted",
    constraint: Annotated[
        str, typer.Option(help=f"engine.constraint of the real engine: {', '.join(CONSTRAINTS)}")
    ] = "always",
    out: Annotated[Path, typer.Option(help="Folder of logs and facts")] = Path("soak-output"),
    stall_s_max: Annotated[float, typer.Option(help="Longest time without progress, in s")] = (
        STALL_S_MAX
    ),
    *,
    only: Annotated[
        str, typer.Option(help="Faults of these kinds alone, such as 'poison,clock jumps'")
    ] = "",
    without: Annotated[str, typer.Option(help="No fault of these kinds")] = "",
    short: Annotated[bool, typer.Option(help="Each kind of fault once, close together")] = False,
    markdown: Annotated[bool, typer.Option(help="Print the tables as Markdown")] = False,
) -> None:
    """Break a cluster and its consumers while posts flow, and check that nothing was lost."""
    _choose("--mode", mode, (*MODES, "both"))
    _choose("--engine", engine, ENGINES)
    _choose("--constraint", constraint, CONSTRAINTS)
    numbers = [int(seed) for seed in seeds.split(",")]
    extra: dict[str, str] = {}
    policies = ROOT / "policies"
    if engine == "vllm":
        from stream_guard.testing.random_model import make_random_model

        model = ROOT / ".cache" / "random-model"
        make_random_model(model)
        extra = engine_environment(model, constraint)
    elif engine == "demo":
        from stream_guard.cli.demo import MODEL

        # Those that the demo model knows: of others it reads thousands of tokens, and seldom answers at once.
        policies = _demo_policies(out / "policies")
        extra = engine_environment(Path(MODEL).resolve(), constraint) | DEMO
    # Each refused connection is an error to aiokafka; here they are the point.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    results: list[tuple[History, Findings]] = []
    for number, seed in enumerate(numbers):
        options = Options(
            seed=seed,
            posts=_share(posts, len(numbers), number),
            faults=_share(faults, len(numbers), number),
            modes=MODES if mode == "both" else (mode,),
            engine="scripted" if engine == "scripted" else "vllm",
            folder=out,
            short=short,
            only=_names(only),
            without=_names(without),
            policies=policies,
            extra=tuple(extra.items()),
        )
        begun_s = time.monotonic()
        for history in asyncio.run(soak(options, _say)):
            file = out / f"seed-{seed}" / f"{history.mode}.json.gz"
            history.save(file)
            _say(f"facts: {file}; {time.monotonic() - begun_s:.0f} s")
            results.append((history, check(history)))
    _conclude(results, stall_s_max=stall_s_max, markdown=markdown)


@app.command("check")
def check_again(
    files: Annotated[list[Path], typer.Argument(help="Facts that a soak has written")],
    stall_s_max: Annotated[float, typer.Option(help="Longest time without progress, in s")] = (
        STALL_S_MAX
    ),
    *,
    markdown: Annotated[bool, typer.Option(help="Print the tables as Markdown")] = False,
) -> None:
    """Check facts again, without a cluster."""
    histories = [History.load(file) for file in files]
    _conclude(
        [(history, check(history)) for history in histories],
        stall_s_max=stall_s_max,
        markdown=markdown,
    )


def _demo_policies(folder: Path) -> Path:
    """Copy the demo's policies, so that both judge every post."""
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier soak
    shutil.copytree(ROOT / "stream_guard" / "cli" / "demo" / "policies", folder)
    slugs = sorted(file.parent.name for file in folder.glob("*/policy.md"))
    (folder / "routes.yaml").write_text(f"default: [{', '.join(slugs)}]\n", "utf-8")
    return folder


def _names(value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _share(total: int, parts: int, number: int) -> int:
    return total // parts + (number < total % parts)


def _say(line: str) -> None:
    _console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False, soft_wrap=True)


def _conclude(
    results: list[tuple[History, Findings]], *, stall_s_max: float, markdown: bool
) -> None:
    seeds = ", ".join(dict.fromkeys(str(history.seed) for history, _ in results))
    heading, *outcomes = report.outcome_rows(results)
    for title, columns, body in (
        (f"Soak, seeds {seeds}", heading, outcomes),
        ("What each kind of fault cost", report.FAULT_COLUMNS, report.fault_rows(results)),
    ):
        if markdown:
            print(f"{title}\n\n{report.markdown(columns, body)}\n")  # noqa: T201 - the result
        else:
            Console().print(report.table(title, columns, body))
    said = [
        f"seed {history.seed}, {history.mode}: {sentence}"
        for history, found in results
        for sentence in objections(found, history, stall_s_max=stall_s_max)
    ]
    for sentence in said:
        _console.print(f"BROKEN: {sentence}", style="bold red", markup=False, soft_wrap=True)
    if said:
        raise typer.Exit(1)
    _console.print(
        f"kept: nothing lost, no other id, no premature commit, no exit of its own, no stall over {stall_s_max:g} s, "
        f"no takeover over {TAKEOVER_S_MAX:g} s; "
        f"run again with --seeds {seeds.replace(' ', '')}",
        soft_wrap=True,
    )


if __name__ == "__main__":
    app()
