"""Plans a deployment on paper: ``make plan ARGS="--posts-per-day 1e9 --policies 40"``.

It prints processes, partitions, GPUs, the brokers' bytes and what a rolling update costs. The number of processes comes
from the capacity formula (see ``make bench-capacity``), the bytes from records as they are written, and the update from
a simulation of events. ``make bench-plan`` holds the simulation against three real replicas.

Every input has a unit, a default and a source, which are printed with the result. A default marked as an assumption is
a guess of ours: replace it by your own figure before you buy anything.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass, field, fields
from typing import Any, Final

from benchmarks.capacity import BUSY, Costs
from benchmarks.report import Table
from benchmarks.rolling import Group, Rolled, simulate

_DAY_S: Final = 86_400
_GIB: Final = 1 << 30
_TIB: Final = 1 << 40


def _input(default: float, unit: str, source: str) -> Any:
    return field(default=default, metadata={"unit": unit, "source": source})


@dataclass(frozen=True)
class Inputs:
    """What a plan is made of; the metadata of each has its unit and its source."""

    posts_per_day: float = _input(1e8, "posts/day", "assumption: your stream")
    peak: float = _input(2.0, "peak / mean", "assumption: your busiest minute")
    policies: float = _input(10, "policies", "assumption: your folder")
    policies_per_post: float = _input(1.0, "policies/post", "assumption: your routes.yaml")
    policy_tokens: float = _input(2_000, "tokens", "docs/guides/policies.md: a usual policy")
    to_model: float = _input(
        0.25, "share", "docs/guides/operations.md; yours: stream_guard_tier_posts_total"
    )
    uncached_tokens: float = _input(
        200, "tokens/post", "helm presets: a usual post; yours: provenance of verdicts"
    )
    generated_tokens: float = _input(
        140, "tokens/post", "one run on an H200; yours: provenance of verdicts"
    )
    prompt_token_us: float = _input(
        2.6,
        "us of engine",
        "one run on an H200, random weights; its split from the next is a guess",
    )
    generated_token_us: float = _input(
        125, "us of engine", "one run on an H200, random weights; yours: make bench-capacity"
    )
    gpus: float = _input(1, "GPUs/process", "helm presets: 1 for 20b, 2 for 120b")
    post_bytes: float = _input(1_000, "bytes/record", "assumption: your topic")
    verdict_bytes: float = _input(1_800, "bytes/record", "a verdict with rationale and headers")
    compression: float = _input(0.4, "share", "assumption: lz4 of JSON")
    replication: float = _input(3, "copies", "docs/guides/running.md")
    retention_days: float = _input(7, "days", "Kafka's default")
    spare_partitions: float = _input(
        2,
        "partitions/process",
        "assumption: room to grow; rounded up, so that all processes have as many",
    )
    start_s: float = _input(
        120, "s", "assumption: weights from a local disk; yours: log, starting to ready"
    )
    stop_s: float = _input(10, "s", "assumption: a drain; at most delivery.drain_timeout_s")
    rebalance_s: float = _input(4, "s", "a heartbeat interval and the join; yours: make bench-plan")
    session_s: float = _input(45, "s", "kafka.session_timeout_ms")
    commit_s: float = _input(1, "s", "delivery.commit_interval_ms")
    settle_s: float = _input(30, "s", "assumption: the probe's pause before the next pod")

    def __post_init__(self) -> None:
        """Refuse what has no meaning. Raises ValueError with the name of the input."""
        for one in fields(self):
            value = getattr(self, one.name)
            if (
                not math.isfinite(value)
                or value < 0
                or (value == 0 and not one.name.endswith("_s"))
            ):
                message = f"--{one.name.replace('_', '-')}: {value:g}; it must be above 0"
                raise ValueError(message)
        for name in ("to_model", "compression"):
            if getattr(self, name) > 1:
                message = f"--{name.replace('_', '-')}: a share is at most 1"
                raise ValueError(message)
        if self.peak < 1:
            raise ValueError("--peak: the peak is at least the mean, so at least 1")


@dataclass(frozen=True)
class Plan:
    """What comes out.

    Attributes:
        mean_per_s, peak_per_s: posts/s.
        process_per_s: posts/s that one process judges when it is full.
        processes, partitions, gpus: how many.
        prefix_tokens: of all policies together; the KV cache of each engine should hold them.
        in_bytes_per_s, out_bytes_per_s: what brokers take in and hand out at the peak, copies included.
        disk_bytes: what brokers keep, copies included.
        group: the group at the peak.
        rolled: what a rolling update at the peak does.
        killed_backlog: posts that wait when a killed process has been replaced by the others, at the peak.
        killed_s: from the kill until that backlog is gone, in s; None if the others have no capacity for it.
        repeated: posts that are judged again after a kill, at most (at least once; exactly once: none are published).
    """

    mean_per_s: float
    peak_per_s: float
    process_per_s: float
    processes: int
    partitions: int
    gpus: int
    prefix_tokens: float
    in_bytes_per_s: float
    out_bytes_per_s: float
    disk_bytes: float
    group: Group
    rolled: Rolled
    killed_backlog: float
    killed_s: float | None
    repeated: float


def make_plan(inputs: Inputs) -> Plan:
    """Return the plan of these inputs."""
    mean = inputs.posts_per_day / _DAY_S
    peak = mean * inputs.peak
    costs = Costs(inputs.prompt_token_us / 1e6, inputs.generated_token_us / 1e6)
    requests = inputs.to_model * inputs.policies_per_post
    rate = 1 / (requests * costs.post_s(inputs.uncached_tokens, inputs.generated_tokens))
    processes = max(1, math.ceil(peak / (BUSY * rate)))
    # A multiple: otherwise some processes have a partition more than others, and are full before them.
    partitions = processes * math.ceil(inputs.spare_partitions)
    written = (
        inputs.post_bytes + inputs.policies_per_post * inputs.verdict_bytes
    ) * inputs.compression
    read = inputs.post_bytes * inputs.compression
    group = Group(
        members=processes,
        partitions=partitions,
        arrival_per_s=peak,
        service_per_s=rate,
        start_s=inputs.start_s,
        stop_s=inputs.stop_s,
        rebalance_s=inputs.rebalance_s,
        settle_s=inputs.settle_s,
    )
    # A killed process judges nothing until the group notices, and then nobody does until all have joined.
    lost = peak / processes * inputs.session_s + peak * inputs.rebalance_s
    spare = (processes - 1) * rate - peak
    return Plan(
        mean_per_s=mean,
        peak_per_s=peak,
        process_per_s=rate,
        processes=processes,
        partitions=partitions,
        gpus=math.ceil(processes * inputs.gpus),
        prefix_tokens=inputs.policies * inputs.policy_tokens,
        in_bytes_per_s=peak * written * inputs.replication,
        # Followers read all but one copy, and readers of verdicts read them once.
        out_bytes_per_s=peak * (read + written * (inputs.replication - 1))
        + peak * inputs.policies_per_post * inputs.verdict_bytes * inputs.compression,
        disk_bytes=mean * written * inputs.replication * inputs.retention_days * _DAY_S,
        group=group,
        rolled=simulate(group),
        killed_backlog=lost,
        killed_s=inputs.session_s + inputs.rebalance_s + lost / spare if spare > 0 else None,
        repeated=rate * inputs.commit_s,
    )


def tables(inputs: Inputs, plan: Plan) -> list[Table]:
    """Return the result and the inputs as tables."""
    rolled, recovery = plan.rolled, plan.rolled.recovery_s
    wait_s = rolled.backlog_max / plan.peak_per_s
    rows = [
        ("posts, mean", plan.mean_per_s, "posts/s"),
        ("posts, peak", plan.peak_per_s, "posts/s"),
        ("one process, full", plan.process_per_s, "posts/s"),
        ("processes", plan.processes, f"at {BUSY:g} of their capacity at the peak"),
        ("partitions, at least", plan.partitions, "of all topics of posts together"),
        ("GPUs", plan.gpus, ""),
        ("policies in each KV cache", plan.prefix_tokens, "tokens"),
        ("brokers take in, peak", plan.in_bytes_per_s / _GIB, "GiB/s, copies included"),
        ("brokers hand out, peak", plan.out_bytes_per_s / _GIB, "GiB/s, copies included"),
        ("brokers keep", plan.disk_bytes / _TIB, "TiB, copies included"),
        ("a rolling update takes", rolled.rolled_s / 60, "minutes"),
        ("highest backlog in it", rolled.backlog_max, f"posts, or {wait_s:,.0f} s of the peak"),
        (
            "backlog is gone",
            None if recovery is None else recovery / 60,
            "minutes after the first stop",
        ),
        ("backlog after kill -9 of one", plan.killed_backlog, "posts, until the group notices"),
        ("it is gone", plan.killed_s, "s after the kill, without a replacement"),
        ("judged again after it", plan.repeated, "posts at most, in at-least-once mode"),
    ]
    given = [
        (
            one.name.replace("_", "-"),
            f"{getattr(inputs, one.name):,g}",
            one.metadata["unit"],
            one.metadata["source"],
        )
        for one in fields(inputs)
    ]
    return [
        Table("Plan", ("what", "value", "unit"), rows),
        Table("Inputs", ("option", "value", "unit", "source of the default"), given),
    ]


def parse(words: list[str] | None = None) -> Inputs:
    """Return the inputs of a command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for one in fields(Inputs):
        said = f"{one.metadata['unit']} (default {one.default:g}; {one.metadata['source']})"
        parser.add_argument(
            f"--{one.name.replace('_', '-')}",
            type=float,
            default=one.default,
            metavar="NUMBER",
            help=said.replace("%", "%%"),
        )
    options = parser.parse_args(words)
    try:
        return Inputs(**vars(options))
    except ValueError as error:
        parser.error(str(error))


def main(words: list[str] | None = None) -> int:
    """Print a plan; return the exit code: 1 if a rolling update at the peak never recovers."""
    inputs = parse(words)
    plan = make_plan(inputs)
    for table in tables(inputs, plan):
        print(table.markdown(), end="\n\n")
    print(
        "Assumes: posts come evenly over partitions and policies; one process drives one engine; brokers are not the\n"
        "limit; rebalances are eager, as aiokafka's are, and replicas are replaced one at a time at the peak."
    )
    if plan.rolled.recovery_s is None:
        print(
            "A rolling update at the peak does not recover: roll at another time, or add processes."
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
