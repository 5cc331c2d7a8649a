"""Finds topic settings that would lose records or stop the service, each with its consequence and remedy. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from stream_guard.core.english import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Level: TypeAlias = Literal["ok", "warning", "error"]
Role: TypeAlias = Literal[
    "input",
    "verdicts",
    "dead letters",
    "shadows",
    "reasoning",
    "review items",
    "archive",
    "breaker",
    "decisions",
    "escalations",
]

_DAY_MS: Final = 86_400_000
_BASELINE_MS: Final = 36 * _DAY_MS
"""Four weeks of a baseline, and one more."""
_RETENTION_MS_MIN: Final[dict[Role, int]] = {
    "input": _DAY_MS,
    "verdicts": _DAY_MS,
    "dead letters": 7 * _DAY_MS,
    "shadows": _DAY_MS,
    "reasoning": _DAY_MS,
    "review items": 7 * _DAY_MS,
    "escalations": 7 * _DAY_MS,
}
_COMPACTED: Final[dict[Role, str]] = {
    "archive": "policy versions are deleted, so their verdicts can no longer be explained",
    "decisions": "people's decisions are deleted, and the machine judges those posts again",
}
_LAG_MS_MIN: Final = 7 * _DAY_MS


class Advice(NamedTuple):
    """One finding.

    Attributes:
        name: the examined thing.
        level: ``error`` if the service cannot work with it.
        detail: the state, and its consequence.
        remedy: what to do; empty if nothing is wrong.
    """

    name: str
    level: Level
    detail: str
    remedy: str = ""


class Topic(NamedTuple):
    """The state of a topic.

    Attributes:
        name: of the topic.
        partitions: how many.
        replicas: the smallest number of replicas of a partition.
        under_replicated, leaderless: partitions with a replica out of sync, and without a leader.
        configs: its settings by Kafka's names, including the brokers' own.
    """

    name: str
    partitions: int
    replicas: int
    under_replicated: int
    leaderless: int
    configs: Mapping[str, str]


def advise(topic: Topic, role: Role, batch_bytes_max: int = 0) -> list[Advice]:
    """Return the findings about a topic, or one line that nothing is wrong.

    Args:
        topic: its state.
        role: what Stream Guard uses it for.
        batch_bytes_max: the largest batch that Stream Guard may write to it, in bytes; 0 if it only reads.
    """
    found = [
        Advice(f"topic {topic.name}", level, detail, remedy)
        for look in (_copies, _cleaning, _sizes)
        for level, detail, remedy in look(topic, role, batch_bytes_max)
    ]
    if found:
        return found
    detail = (
        f"{role}: {count_of(topic.partitions, 'partition')}, {count_of(topic.replicas, 'replica')}"
    )
    return [Advice(f"topic {topic.name}", "ok", detail)]


_Found: TypeAlias = "Iterator[tuple[Level, str, str]]"


def _copies(topic: Topic, _role: Role, _bytes: int) -> _Found:
    """Find settings that lose records when a broker is lost."""
    alter = f"kafka-configs --alter --topic {topic.name} --add-config"
    in_sync = _number(topic, "min.insync.replicas", 1)
    if topic.leaderless:
        yield (
            "error",
            f"{count_of(topic.leaderless, 'partition')} without a leader: no read or write there succeeds",
            "start the brokers that have them",
        )
    elif topic.under_replicated:
        yield (
            "warning",
            f"{count_of(topic.under_replicated, 'partition')} with a replica that is not in sync",
            "find the broker that is down or slow",
        )
    if topic.replicas == 1:
        yield (
            "warning",
            "there is one replica: a lost disk loses acknowledged records",
            "raise it to 3 with kafka-reassign-partitions, and min.insync.replicas to 2",
        )
    elif in_sync > topic.replicas:
        yield (
            "error",
            (
                f"min.insync.replicas is {in_sync}, the topic has {count_of(topic.replicas, 'replica')}: "
                "no write is ever acknowledged"
            ),
            f"{alter} min.insync.replicas={topic.replicas - 1}",
        )
    elif in_sync == 1:
        yield (
            "warning",
            "min.insync.replicas is 1: records that only one broker has are lost with that broker",
            f"{alter} min.insync.replicas=2",
        )
    elif in_sync == topic.replicas:
        yield (
            "warning",
            f"min.insync.replicas is {in_sync}, as many as there are replicas: one missing broker stops all writes",
            f"{alter} min.insync.replicas={topic.replicas - 1}",
        )
    if topic.configs.get("unclean.leader.election.enable") == "true":
        yield (
            "warning",
            "unclean.leader.election.enable is true: a lagging replica may become leader, and lose records",
            f"{alter} unclean.leader.election.enable=false",
        )


def _cleaning(topic: Topic, role: Role, _bytes: int) -> _Found:
    """Find settings that delete records before they are read."""
    policies = topic.configs.get("cleanup.policy", "delete").split(",")
    alter = f"kafka-configs --alter --topic {topic.name} --add-config"
    if role in _COMPACTED:
        if policies != ["compact"]:
            kinds = ",".join(policies)
            what = _COMPACTED[role]
            remedy = f"{alter} cleanup.policy=compact"
            yield "warning", f"cleanup.policy is {kinds}: {what}", remedy
        elif role == "decisions" and _number(topic, "min.compaction.lag.ms", 0) < _LAG_MS_MIN:
            yield (
                "warning",
                (
                    "min.compaction.lag.ms is below 7 days: a decision that is written late may remove a later one "
                    "before Stream Guard has read both"
                ),
                f"{alter} min.compaction.lag.ms={_LAG_MS_MIN}",
            )
        return
    if role == "breaker":
        yield from _breaker(topic, policies, alter)
        return
    if "compact" in policies:
        what = {
            "input": "of two posts with the same key, the older may be deleted before it is judged",
            "dead letters": "of two dead letters with the same key, the older is deleted",
        }.get(
            role,
            "of two verdicts with the same key, the older is deleted, although it belongs to another post",
        )
        yield "warning", f"cleanup.policy is compact: {what}", f"{alter} cleanup.policy=delete"
    kept_ms = _number(topic, "retention.ms", -1)
    least_ms = _RETENTION_MS_MIN[role]
    if "delete" in policies and 0 <= kept_ms < least_ms:
        yield (
            "warning",
            f"retention.ms keeps {role} for {kept_ms / 3_600_000:g} h: records that are not read by then are deleted",
            f"{alter} retention.ms={least_ms}, or longer than the longest outage that you expect",
        )
    kept_bytes = _number(topic, "retention.bytes", -1)
    if "delete" in policies and kept_bytes >= 0:
        yield (
            "warning",
            f"retention.bytes is {kept_bytes} a partition: a burst deletes unread records, even new ones",
            f"{alter} retention.bytes=-1, and limit the time instead",
        )


def _breaker(topic: Topic, policies: list[str], alter: str) -> _Found:
    """Find settings that lose counts of actions."""
    if "compact" not in policies:
        what = "counts that still hold are deleted, and the service stops at its start"
        remedy = f"{alter} cleanup.policy=[compact,delete]"
        yield "error", f"cleanup.policy is {','.join(policies)}: {what}", remedy
    kept_ms = _number(topic, "retention.ms", -1)
    if "delete" in policies and 0 <= kept_ms < _BASELINE_MS:
        yield (
            "warning",
            f"retention.ms keeps {kept_ms / _DAY_MS:g} days: the usual number of actions needs two weeks at least",
            f"{alter} retention.ms={_BASELINE_MS}",
        )


def _sizes(topic: Topic, role: Role, batch_bytes_max: int) -> _Found:
    """Find limits below the batches that Stream Guard writes."""
    taken = _number(topic, "max.message.bytes", 1 << 20)
    if taken < batch_bytes_max:
        lower = "kafka.batch_bytes_max"
        if role == "dead letters":
            lower += " and kafka.dead_letter_bytes_max"
        what = f"max.message.bytes is {taken}, and Stream Guard writes batches of up to {batch_bytes_max} bytes"
        yield (
            "error",
            f"{what}: a larger batch is sent again record by record; a larger record loses detail or stops the service",
            f"raise max.message.bytes to {batch_bytes_max}, or lower {lower}",
        )


def _number(topic: Topic, name: str, default: int) -> int:
    try:
        return int(topic.configs[name])
    except (KeyError, ValueError):
        return default
