"""Shows a backfill's report and its estimate as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_guard.cli.terminal import count_of, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.offline.backfill.run import Output, Report

_HOUR_S = 3_600


def say_report(report: Report, output: Output) -> None:
    """Print what went in and what came out."""
    counts, store = report.counts, output.store
    say(f"{counts.places:,} rows of {report.source} went in, under {', '.join(report.policies)}:")
    for count, what in (
        (counts.posts, "judged"),
        (counts.blank, "empty: a blank line, or an offset without a record"),
        (counts.skipped.total(), f"skipped, no posts: {_reasons(counts.skipped)}"),
        (counts.refused.total(), f"dead letters, no valid post: {_reasons(counts.refused)}"),
    ):
        if count or what == "judged":
            say(f"  {count:,} {what}")
    say(f"{count_of(counts.verdicts, 'verdict')} came out, and all rows are accounted for")
    if counts.failed:
        failed = count_of(counts.failed.total(), "judgement")
        say(f"  {failed} failed and became dead letters: {_reasons(counts.failed)}")
    if report.resumed:
        say(
            f"{report.resumed:,} of {count_of(report.blocks, 'block')} were judged by an earlier run"
        )
    if report.published is not None:
        there = report.published
        say(f"{count_of(there.verdicts, 'verdict')} in the topic {output.topic}")
        if there.limited:
            say(
                f"  {there.limited:,} with a review in place of an action, because a limit was reached"
            )
        if there.decided:
            say(f"  {there.decided:,} left out, because a person has decided about the post")
    say(f"verdicts: {store.root}/verdicts")
    if counts.letters:
        say(f"dead letters: {store.root}/dead-letters")


def say_estimate(made: Mapping[str, Any]) -> None:
    """Print what a backfill would take."""
    say(
        f"sample: {made['sample_posts']:,} posts of {made['sample_rows']:,} rows judged in {made['sample_s']:.1f} s: "
        f"{made['posts_per_s_and_actor']:,.1f} posts/s by one actor on this machine"
    )
    say("all of it, if the rest is like the sample:")
    say(
        f"  posts          {made['posts']:,} of {made['rows']:,} rows, in {count_of(made['blocks'], 'block')}"
    )
    for name, what in (("skipped", "skipped"), ("dead_letters", "dead letters")):
        if made[name]:
            say(f"  {what:<14} {made[name]:,}")
    say(f"  verdicts       {made['verdicts']:,}")
    say(
        f"  tokens         {made['prompt_tokens']:,} of prompts, {made['cached_tokens']:,} of them cached; "
        f"{made['output_tokens']:,} of output"
    )
    say(f"  time           {_duration(made['hours'])} with {count_of(made['actors'], 'actor')}")
    if made["cost"] is not None:
        say(
            f"  cost           {made['cost']:,.2f}: {made['actor_hours']:,.2f} hours of an actor at "
            f"{made['price_per_hour']:g} each"
        )
    say(
        "a small sample fills an engine badly, so the real rate is often higher; --sample makes it larger"
    )


def _reasons(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(counted.items()))


def _duration(hours: float) -> str:
    seconds = round(hours * _HOUR_S)
    if seconds < 2 * _HOUR_S:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{hours:,.1f} hours"
