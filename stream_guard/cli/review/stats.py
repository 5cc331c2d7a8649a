"""``stream-guard review stats``, ``export`` and ``rebuild``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from stream_guard.cli.options import ConfigOption, JsonOption
from stream_guard.cli.output_files import refuse_existing
from stream_guard.cli.review.options import (
    DatabaseOption,
    OfflineOption,
    open_desk,
    refuse_unknown_policy,
)
from stream_guard.cli.terminal import count_of, run_quietly, say, warn, write_json, write_table
from stream_guard.core.errors import SettingsError


def stats(
    *,
    database: DatabaseOption = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Estimate precision and recall from the sampled decisions, and show how far reviewers agree.

    Intervals are for 95 % and respect the shares of the sample.
    """
    from stream_guard.offline.review.report import report

    with open_desk(config, database, offline=offline) as desk:
        found = report(desk.queue)
    if json:
        write_json(found)
        return
    say(", ".join(f"{number:,} {name}" for name, number in found["items"].items()))
    write_table(
        ("policy", "category", "drawn", "decided", "precision", "recall"),
        [
            (
                one["policy"],
                one["category"] or "(all)",
                f"{one['drawn']:,}",
                f"{one['decided']:,}",
                _estimate(one["precision"]),
                _estimate(one["recall"]),
            )
            for one in found["quality"]
        ],
        right=("drawn", "decided"),
    )
    for who, figures in found["agreement"].items():
        if figures:
            rows = [
                (name, f"{one['pairs']:,}", f"{one['agree']:.0%}", _number(one["kappa"]))
                for name, one in figures.items()
            ]
            write_table((who, "pairs", "agree", "kappa"), rows, right=("pairs", "agree", "kappa"))


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _estimate(one: dict[str, Any]) -> str:
    if one["value"] is None:
        return "unknown"
    return f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})"


def export_golden(
    *,
    policy: Annotated[str, typer.Option("--policy", metavar="POLICY", help="The policy.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The golden set, as .jsonl.")
    ],
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace the file.")] = False,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Export the decisions about a policy's verdicts as a golden set for stream-guard eval.

    The label is the category of a violation, or the decision. The file holds the text of posts.
    """
    from stream_guard.offline.review.follow import post_text
    from stream_guard.offline.review.report import golden_rows

    if output.suffix != ".jsonl":
        raise SettingsError(f"--output {output}: must end in .jsonl, so that eval reads it")
    refuse_existing("--output", output, force=force)
    with open_desk(config, database, offline=False) as desk:
        refuse_unknown_policy(desk, policy)
        settings = desk.settings
        rows, missing = run_quietly(
            golden_rows(desk.queue, policy, lambda item: post_text(settings, item))
        )
    try:
        output.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    except OSError as error:
        raise SettingsError(f"--output {output}: {error.strerror}") from error
    warn(f"{count_of(len(rows), 'row')}; {count_of(missing, 'decision')} without a text any more")


def rebuild(*, database: DatabaseOption = None, config: ConfigOption = None) -> None:
    """Rebuild the database from the topics. Leases end; the audit trail stays.

    It prints the digest of what the topics say: equal digests mean equal databases.
    """
    import hashlib

    with open_desk(config, database, offline=False, rebuild=True) as desk:
        counts = desk.queue.counts()
        digest = hashlib.sha256(desk.projection.dump()).hexdigest()
    say(", ".join(f"{number:,} {name}" for name, number in counts.items()) + f"; sha256 {digest}")
