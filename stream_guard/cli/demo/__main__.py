"""``python -m stream_guard.cli.demo``: what ``make demo`` runs.

Starts a broker, runs ``stream-guard run`` with the demo model as a process of its own, feeds it posts by a plain
producer, and prints verdicts as they come. Then it edits a line of a policy while all goes on, and sends the same
posts again. Then a person overrules a verdict, and the same post comes once more. It exits 0 only if every record has
come out as its verdicts or as a dead letter, a post was left to people, a reply is safe while the post that it quotes
violates, the edit changed what it should, the person was obeyed, and the consumer drained and exited 0.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from typing import TYPE_CHECKING, Final

import orjson

from stream_guard.cli.demo.environment import (
    OUTPUT,
    copy_policies,
    run_demo,
    say_progress,
    service_environment,
)
from stream_guard.cli.demo.posts import (
    BROKEN,
    CHAT,
    EDIT,
    FORUM,
    QUOTED,
    QUOTES_POLICY,
    REPLY,
    demo_posts,
)
from stream_guard.cli.demo.process import Program
from stream_guard.cli.demo.stream import DEAD_LETTERS, VERDICTS, Totals, Watcher, feed
from stream_guard.cli.terminal import count_of, say
from stream_guard.kafka.decision_writer import write_decision
from stream_guard.policies.store import load_policies
from stream_guard.records.decision import Decision, about_verdict
from stream_guard.settings import KafkaSettings
from stream_guard.testing.broker import Broker

if TYPE_CHECKING:
    from pathlib import Path

CHANGED_MIN: Final = 5
"""How many posts have to get another verdict by the edit."""
_START_S: Final = 300.0
_VERDICTS_S: Final = 240.0
_EDIT_S: Final = 60.0
_STOP_S: Final = 60.0


async def _run(broker: Broker) -> int:
    folder = copy_policies()
    totals, log = Totals(), OUTPUT / "consumer.log"
    main = asyncio.current_task()
    assert main is not None, "asyncio runs us"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main.cancel)
    environment = service_environment(broker, folder)
    async with Program("the consumer", "run", environment, log, say_progress) as consumer:
        spent_s = await consumer.until("ready", _START_S, waiting_for="the engine is starting")
        say_progress(f"the engine is ready after {spent_s:.0f} s")
        with (OUTPUT / "verdicts.jsonl").open("wb") as file:
            watcher = Watcher(broker, totals, say, file)
            await watcher.start()
            try:
                started_s = time.monotonic()
                records, complete = await _rounds(broker, consumer, watcher, totals, folder)
                seconds = time.monotonic() - started_s
            finally:
                await watcher.stop()
        exit_code = await consumer.stop(_STOP_S)
    _report(records, totals, seconds)
    if not complete or exit_code != 0:
        say(
            f"accounted for {len(totals.done)} of {totals.owed}; the consumer exited {exit_code}",
            style="red",
        )
        return 1
    missing = not_shown(totals)
    for line in missing:
        say(line, style="red")
    return 1 if missing else 0


def not_shown(totals: Totals) -> list[str]:
    """Return a sentence for each thing that the demo has to show and did not."""
    found = []
    if len(totals.changed) < CHANGED_MIN:
        found.append(
            f"only {count_of(len(totals.changed), 'post')} got another verdict by the edit"
        )
    if not totals.escalated:
        found.append("no post was left to people")
    if [one["decision"] for one in totals.by_people] != ["safe", "safe"]:
        found.append("the person who overruled a verdict was not obeyed")
    said = [totals.by_text.get((text, QUOTES_POLICY)) for text in (QUOTED, REPLY)]
    if said != ["violates", "safe"]:
        found.append(
            f"the post {QUOTED!r} and the reply that quotes it were judged {said[0]} and {said[1]}, "
            "not violates and safe"
        )
    return found


async def _rounds(
    broker: Broker, consumer: Program, watcher: Watcher, totals: Totals, folder: Path
) -> tuple[int, bool]:
    """Feed, edit, and feed again; return how many records, and whether all came out."""
    policies = load_policies(folder)
    posts = demo_posts()
    say_progress("feeding posts, and some records that are none")
    totals.owed = len(BROKEN) + sum(len(policies.route(topic)) for topic, _, _ in posts)
    records = await feed(broker, posts, broken=True)
    if not await watcher.round(consumer, _VERDICTS_S):
        return records, False
    say()
    say(f"A moderator edits {folder / EDIT.policy / 'policy.md'} while the service runs:")
    say(f"  - {EDIT.old}", style="red")
    say(f"  + {EDIT.new}", style="green")
    EDIT.apply(folder)
    spent_s = await consumer.until("policies_switched", _EDIT_S, waiting_for="the edit goes live")
    say_progress(f"the edit is live after {spent_s:.1f} s; the same posts again")
    again = [post for post in posts if post[0] == FORUM]
    totals.owed += sum(len(policies.route(topic)) for topic, _, _ in again)
    records += await feed(broker, again, broken=False)
    if not await watcher.round(consumer, _VERDICTS_S):
        return records, False
    return records + 1, await _overrule(broker, consumer, watcher, totals)


async def _overrule(broker: Broker, consumer: Program, watcher: Watcher, totals: Totals) -> bool:
    """Let a person overrule a violation, and send the same post once more; return whether all came out."""
    key, verdict = next(
        (key, one)
        for key, one in totals.last.items()
        if one["decision"] == "violates" and one["source"]["topic"] == FORUM
    )
    [post] = [each for each in demo_posts() if orjson.loads(each[2])["id"] == key[0]]
    say()
    say(f"A reviewer overrules the verdict {verdict['id']}: the post is safe. The same post again:")
    decision = Decision.model_validate(
        {
            "schema_version": "1.0",
            "id": "demo-1",
            "kind": "review",
            "decided_at": time.time_ns() // 1_000_000,
            "decided_by": {"id": "reviewer-1", "role": "reviewer"},
            "about": about_verdict(verdict),
            "outcome": {"decision": "safe", "action": "none"},
            "reason": "The post only mentions it.",
        }
    )
    await write_decision(KafkaSettings(bootstrap_servers=broker.bootstrap_servers), decision)
    totals.owed += 1
    if not await watcher.rest(consumer, _VERDICTS_S):
        return False
    totals.owed += 1
    await feed(broker, [post], broken=False)
    return await watcher.rest(consumer, _VERDICTS_S)


def _report(records: int, totals: Totals, seconds: float) -> None:
    verdicts = sum(totals.decisions.values())
    dead_letters = sum(totals.reasons.values())
    counts = [
        ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))
        for counter in (totals.decisions, totals.reasons)
    ]
    say()
    say(
        f"{records} records in, {verdicts} verdicts and {dead_letters} dead letters out, {seconds:.1f} s"
    )
    say(f"  verdicts: {counts[0]}")
    say(f"  dead letters: {counts[1]}")
    say(
        f"{len(totals.changed)} posts got another verdict because one line of the policy changed: "
        "no training, no restart.",
        style="bold",
    )
    say("A person overruled a verdict, and the same post got the person's answer.", style="bold")
    for text in sorted(totals.escalated):
        say(f"The policy leaves this post to people: {text}", style="bold")
    say(
        "The demo model is tiny. It follows small policies of plain words. It is not a moderation model.",
        style="yellow",
    )
    say(
        "On a GPU node, STREAM_GUARD_ENGINE__MODEL=openai/gpt-oss-safeguard-20b is all that changes."
    )
    say(
        f"The verdicts are in {OUTPUT / 'verdicts.jsonl'}, the consumer's log in {OUTPUT / 'consumer.log'}."
    )
    say()
    say("Try next:")
    for command in ("policies lint", "config", "policies show dangerous-content"):
        say(f"  .venv/bin/stream-guard {command}")


def main() -> int:
    """Run the demo; return its exit code."""
    return run_demo(_run, FORUM, CHAT, VERDICTS, DEAD_LETTERS)


if __name__ == "__main__":
    sys.exit(main())
