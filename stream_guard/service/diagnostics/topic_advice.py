"""What is wrong with how a topic is set: what would lose records, or stop the service, and the remedy. Pure.

What it must never do: call a setting wrong without saying what happens by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Level: TypeAlias = Literal["ok", "warning", "error"]
Role: TypeAlias = Literal["input", "verdicts", "dead letters", "shadows", "reasoning", "archive"]

_DAY_MS: Final = 86_400_000
_RETENTION_MS_MIN: Final[dict[Role, int]] = {
    "input": _DAY_MS,
    "verdicts": _DAY_MS,
    "dead letters": 7 * _DAY_MS,
    "shadows": _DAY_MS,
    "reasoning": _DAY_MS,
}


class Advice(NamedTuple):
    """One thing that was found.

    Attributes:
        name: what was looked at.
        level: ``error`` where the service cannot do its work by it.
        detail: what is, and what happens by it.
        remedy: what to do; empty where all is well.
    """

    name: str
    level: Level
    detail: str
    remedy: str = ""


class Topic(NamedTuple):
    """What is known of a topic.

    Attributes:
        name, partitions: which, and how many.
        replicas: the fewest that a partition has.
        under_replicated, leaderless: partitions with a replica out of sync, and without a leader.
        configs: its settings by Kafka's names, the brokers' own among them.
    """

    name: str
    partitions: int
    replicas: int
    under_replicated: int
    leaderless: int
    configs: Mapping[str, str]


def advise(topic: Topic, role: Role, batch_bytes_max: int = 0) -> list[Advice]:
    """Return what is wrong with a topic, or one line that nothing is.

    Args:
        topic: what is known of it.
        role: what it is to us.
        batch_bytes_max: the largest batch that we may write to it, in bytes; 0 where we only read.
    """
    found = [
        Advice(f"topic {topic.name}", level, detail, remedy)
        for look in (_copies, _cleaning, _sizes)
        for level, detail, remedy in look(topic, role, batch_bytes_max)
    ]
    if found:
        return found
    detail = f"{role}: {topic.partitions} partitions, {topic.replicas} replicas"
    return [Advice(f"topic {topic.name}", "ok", detail)]


_Found: TypeAlias = "Iterator[tuple[Level, str, str]]"


def _copies(topic: Topic, _role: Role, _bytes: int) -> _Found:
    """Look for what loses records together with a broker."""
    alter = f"kafka-configs --alter --topic {topic.name} --add-config"
    in_sync = _number(topic, "min.insync.replicas", 1)
    if topic.leaderless:
        yield (
            "error",
            f"{topic.leaderless} partitions have no leader: nothing of them is read or written",
            "start the brokers that have them",
        )
    elif topic.under_replicated:
        yield (
            "warning",
            f"{topic.under_replicated} partitions have a replica that is not in sync",
            "see which broker is away or slow",
        )
    if topic.replicas == 1:
        yield (
            "warning",
            "there is one replica: what is on a broker's disk is lost with it, though it was acknowledged",
            "raise it to 3 with kafka-reassign-partitions, and min.insync.replicas to 2",
        )
    elif in_sync > topic.replicas:
        yield (
            "error",
            f"min.insync.replicas is {in_sync} and there are {topic.replicas} replicas: no write is ever acknowledged",
            f"{alter} min.insync.replicas={topic.replicas - 1}",
        )
    elif in_sync == 1:
        yield (
            "warning",
            "min.insync.replicas is 1: what one broker has acknowledged alone is lost with it",
            f"{alter} min.insync.replicas=2",
        )
    elif in_sync == topic.replicas:
        yield (
            "warning",
            f"min.insync.replicas is {in_sync}, as many as there are replicas: one broker away stops all writes",
            f"{alter} min.insync.replicas={topic.replicas - 1}",
        )
    if topic.configs.get("unclean.leader.election.enable") == "true":
        yield (
            "warning",
            "unclean.leader.election.enable is true: a replica that was behind may lead, and what it lacks is lost",
            f"{alter} unclean.leader.election.enable=false",
        )


def _cleaning(topic: Topic, role: Role, _bytes: int) -> _Found:
    """Look for what removes records before they are read."""
    policies = topic.configs.get("cleanup.policy", "delete").split(",")
    alter = f"kafka-configs --alter --topic {topic.name} --add-config"
    if role == "archive":
        if policies != ["compact"]:
            kinds = ",".join(policies)
            what = (
                "versions of policies are deleted, and verdicts under them can be explained no more"
            )
            remedy = f"{alter} cleanup.policy=compact"
            yield "warning", f"cleanup.policy is {kinds}: {what}", remedy
        return
    if "compact" in policies:
        what = {
            "input": "of two posts with one key the older may vanish before it is judged",
            "dead letters": "of two dead letters with one key the older vanishes",
        }.get(role, "of two verdicts with one key the older vanishes, though it is another post's")
        yield "warning", f"cleanup.policy is compact: {what}", f"{alter} cleanup.policy=delete"
    kept_ms = _number(topic, "retention.ms", -1)
    least_ms = _RETENTION_MS_MIN[role]
    if "delete" in policies and 0 <= kept_ms < least_ms:
        yield (
            "warning",
            f"retention.ms keeps {role} for {kept_ms / 3_600_000:g} h: what is not read by then is gone",
            f"{alter} retention.ms={least_ms}, or longer than the longest outage to be survived",
        )
    kept_bytes = _number(topic, "retention.bytes", -1)
    if "delete" in policies and kept_bytes >= 0:
        yield (
            "warning",
            f"retention.bytes is {kept_bytes} a partition: a burst removes what is not read yet, however young",
            f"{alter} retention.bytes=-1, and bound the time instead",
        )


def _sizes(topic: Topic, role: Role, batch_bytes_max: int) -> _Found:
    """Look for batches that we may write and the topic does not take."""
    taken = _number(topic, "max.message.bytes", 1 << 20)
    if taken < batch_bytes_max:
        lower = "kafka.batch_bytes_max"
        if role == "dead letters":
            lower += " and kafka.dead_letter_bytes_max"
        what = f"max.message.bytes is {taken}, and a batch of ours may have {batch_bytes_max}"
        yield (
            "error",
            f"{what}: one that is too large stops the service",
            f"raise max.message.bytes to {batch_bytes_max}, or lower {lower}",
        )


def _number(topic: Topic, name: str, default: int) -> int:
    try:
        return int(topic.configs[name])
    except (KeyError, ValueError):
        return default
