"""What ``policies gates`` and ``policies promote`` share: their options, and how they measure a draft."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

import typer

from stream_guard.cli.eval import make_folder
from stream_guard.cli.policies.rulings import find_rulings
from stream_guard.cli.policy_folder import find_policy, load_folder
from stream_guard.cli.terminal import count_of, run_quietly, say, show_progress, write_table
from stream_guard.cli.warm_engine import studio_judge
from stream_guard.kafka.bounds import read_bound
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.cli.policies.rulings import Source
    from stream_guard.offline.improve.gates import Gate, Measured
    from stream_guard.policies.drafts import Draft
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import Settings

TopicsOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--topic",
        "-t",
        metavar="TOPIC",
        help="Backtest the records of this topic; may be repeated. Default: the topics of kafka.topics that the policy "
        "judges.",
    ),
]
SinceOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME|OFFSET",
        help="Where the backtest begins. Default: 24 hours ago.",
    ),
]
LimitOption: TypeAlias = Annotated[
    int, typer.Option("--limit", "-n", min=0, help="Backtest at most N records of a topic; 0: all.")
]
ShadowOption: TypeAlias = Annotated[
    int,
    typer.Option("--shadow", metavar="N", min=1, help="Compare the shadow's latest N verdicts."),
]
OutOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FOLDER",
        help="Folder for the report on the golden set. Default: eval-output/POLICY.",
    ),
]
LIMIT = 5_000
SHADOW = 1_000


class Asked(NamedTuple):
    """The options of a measurement."""

    topics: Sequence[str] | None
    since: str | None
    limit: int
    shadow: int
    out: Path | None
    force: bool
    no_studio: bool
    source: Source


class Found(NamedTuple):
    """A measured draft."""

    settings: Settings
    path: Path
    live: Policy
    draft: Draft
    measured: Measured
    gates: Sequence[Gate]
    report: Path

    def describe(self) -> dict[str, Any]:
        """Return everything as plain data for JSON."""
        live, draft = self.live, self.draft.policy
        return {
            "policy": live.id,
            "live": {"version": live.version, "sha256": live.sha256},
            "draft": {"version": draft.version, "sha256": draft.sha256},
            "figures": self.measured.describe(),
            "gates": [gate._asdict() for gate in self.gates],
            "held": all(gate.held for gate in self.gates),
        }


def measure(slug: str, path: Path | None, config: Path | None, asked: Asked) -> Found:
    """Measure the draft of a policy, and hold it against the gates.

    Raises:
        PolicyError: there is no draft, it changes nothing, or there are no gates.
        EngineError, BrokerError, SettingsError: it cannot be measured.
    """
    from stream_guard.offline.evaluation.runner import write_files
    from stream_guard.offline.improve.gates import check_gates
    from stream_guard.offline.improve.preparing import prepare
    from stream_guard.telemetry.logs import configure_logs

    settings = load_settings(config)
    configure_logs(settings.telemetry)
    folder, policies = load_folder(path, config)
    live = find_policy(policies, slug)
    draft = draft_of(settings, folder, slug)
    ready = prepare(settings, folder, policies, live, draft)
    target = asked.out or Path("eval-output") / slug
    make_folder(target, slug, force=asked.force)
    run = ready.measuring(
        find_rulings(config, slug, asked.source) if ready.with_people else (),
        topics=asked.topics or None,
        since=read_bound(asked.since, "--since"),
        records_max=asked.limit,
        shadow_max=asked.shadow,
    )
    warm = studio_judge(settings, no_studio=asked.no_studio)
    with show_progress("starting the engine") as progress:
        measured, evaluation, lines = run_quietly(
            run.run(lambda what, done, total: progress(done, total, what), judge=warm)
        )
    write_files(target, evaluation, lines, ready.rows)
    gates = check_gates(ready.limits, measured)
    return Found(settings, folder, live, draft, measured, gates, target / "report.html")


def draft_of(settings: Settings, folder: Path, slug: str) -> Draft:
    """Return the draft of a policy. Raises PolicyError where there is none."""
    from stream_guard.policies.drafts import read_draft

    engine = settings.engine
    return read_draft(
        folder,
        slug,
        effort=engine.effort,
        reasoning_tokens_max=engine.reasoning_tokens_max,
        answer=engine.answer,
    )


def say_found(found: Found) -> None:
    """Print the figures, and each gate."""
    live, draft, measured = found.live, found.draft.policy, found.measured
    golden = measured.golden
    say(f"{live.id}: live {live.version}, draft {draft.version}, sha256 {draft.sha256[:12]}")
    say(
        f"golden set: {count_of(golden.rows, 'row')}, F1 {_number(golden.f1_old)} live and {_number(golden.f1_new)} "
        f"draft; {count_of(golden.flips, 'flip')}, {golden.better} better, {golden.worse} worse"
    )
    for report in measured.backtests:
        left = report["left_by_limit"]
        rest = f", {left:,} left out by --limit" if left else ""
        say(
            f"backtest of {report['topic']}: {count_of(report['judged'], 'record')} judged, {report['compared']:,} "
            f"compared, {report['other_decision']:,} with another decision{rest}"
        )
    if (shadow := measured.shadow_flips).total:
        agreed = measured.shadow_people
        say(
            f"shadow: {count_of(shadow.total, 'post')} compared, {shadow.part:,} with another decision; people "
            f"decided on {agreed.total:,} and agree on {agreed.part:,}"
        )
    if (people := measured.people).total:
        say(
            f"people decided on {count_of(people.total, 'post')}; the draft agrees on {people.part:,}"
        )
    rows = [
        (
            gate.name,
            f"{gate.limit:g}",
            _number(gate.value),
            "held" if gate.held else "NOT HELD",
            gate.of,
        )
        for gate in found.gates
    ]
    write_table(("gate", "limit", "value", "", "of"), rows, right=("limit", "value"))
    say(f"wrote {found.report}")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
