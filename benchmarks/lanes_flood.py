"""A flood by one tenant on a real broker and the real engine: what the others wait, without lanes and with them.

Twenty tenants send half of what the engine can do, at random gaps. In the flood, one more tenant sends a hundred times
as much as each of them, which is two and a half times what the engine can do. Latency is from append to verdict, by
the broker's clock. Tenants share all partitions. The last run hands the engine twice as many requests as it runs, so
that half of them wait inside vLLM.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import orjson

from benchmarks import traffic
from benchmarks.engine_feed import Bench, How
from benchmarks.figures import percentile
from benchmarks.report import Table
from benchmarks.sides import SideError
from benchmarks.workload import Given

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.report import Report
    from benchmarks.sides import Sizes
    from stream_guard.testing import Broker

TENANTS: Final = 20
FACTOR: Final = 100
SHARE: Final = 0.5
"""Load of the twenty, as a share of what the engine can do."""
RUNS: Final = (
    ("plain-calm", False, 1, False),
    ("plain-flood", False, 1, True),
    ("lanes-calm", True, 1, False),
    ("lanes-flood", True, 1, True),
    ("lanes-flood-deep", True, 2, True),
)
"""Of each run: its name, whether there are lanes, requests in the engine per slot, and whether there is a flood."""
_POLICY: Final = """# Touting

Answer `VIOLATES` or `SAFE`.

## Violates (TT1 - Price)

- asks for more than the price on the ticket
"""
_LANES: Final = "default: [touting]\nlanes:\n  - {name: forum, goal_s: 10}\n"
_NOISY: Final = "noisy"


def make_posts(run: str, count: int, *, flood: bool) -> list[Given]:
    """Return so many posts of the twenty tenants and, in a flood, those of the noisy one between them."""
    chance = random.Random(count)  # noqa: S311 - drawn to be repeated
    tenants = [f"tenant-{number % TENANTS}" for number in range(count)]
    if flood:
        tenants += [_NOISY] * (count * FACTOR // TENANTS)
    chance.shuffle(tenants)
    made = []
    for number, tenant in enumerate(tenants):
        name = f"{tenant}/{run}-{number}"
        text = f"{name}: who has a ticket, and what should it cost? {chance.random()}"
        value = orjson.dumps({"id": name, "text": text, "tenant": tenant})
        made.append(Given(name, "touting", value))
    return made


def folder_of(place: Path, *, lanes: bool) -> Path:
    """Return a folder of one policy, with lanes or without."""
    folder = place / ("with-lanes" if lanes else "without-lanes")
    (folder / "touting").mkdir(parents=True)
    (folder / "touting" / "policy.md").write_text(_POLICY, encoding="utf-8")
    if lanes:
        (folder / "routes.yaml").write_text(_LANES, encoding="utf-8")
    return folder


def how_of(folder: Path, window: int) -> How:
    """Return how Stream Guard runs: with these policies, and so many requests in the engine."""
    settings = (
        ("ENGINE__IN_FLIGHT_REQUESTS_MAX", str(window)),
        ("ENGINE__REASONING_TOKENS_MAX", "16"),
    )
    return How(folder, settings=settings)


async def measure(
    report: Report, broker: Broker, place: Path, sizes: Sizes, count: int, saturated: int
) -> None:
    """Run all and fill the report.

    Args:
        report: to fill.
        broker: with room for the topics.
        place: a folder for policies and logs.
        sizes: of the engine.
        count: posts of the twenty tenants in each run.
        saturated: posts of the run that measures what the engine can do.

    Raises:
        SideError: nothing was judged at saturation.
    """
    bench = Bench(broker, place, sizes, report, "same")
    folders = {lanes: folder_of(place, lanes=lanes) for lanes in (False, True)}
    full = await bench.guard(
        "full", make_posts("full", saturated, flood=False), how_of(folders[False], sizes.seqs)
    )
    rate = traffic.rate_of(full.seen)
    if rate is None:
        message = "nothing was judged at saturation, so that there is no half of it"
        raise SideError(message)
    rows: list[tuple[str, float | None, float | None, float | None]] = []
    p99s: dict[str, float | None] = {}
    for name, lanes, window, flood in RUNS:
        posts = make_posts(name, count, flood=flood)
        how = how_of(folders[lanes], window * sizes.seqs)
        run = await bench.guard(name, posts, how, load=SHARE * rate * len(posts) / count)
        waited_s = [
            (one.verdict_ms - one.appended_ms) / 1_000
            for one in run.seen
            if not one.post.startswith(_NOISY)
        ]
        p99s[name] = p99 = percentile(waited_s, 0.99)
        rows.append((name, percentile(waited_s, 0.5), p99, traffic.rate_of(run.seen)))
        report.raw.append({"what": name, "waited_s": waited_s})
        print(f"{name}: p99 of others {p99 or 0:,.2f} s", flush=True)
    columns = ("run", "p50 of others, s", "p99 of others, s", "posts/s of all")
    report.tables.append(Table("A flood on the real broker and engine", columns, rows))
    with_lanes, without = p99s["lanes-flood"], p99s["plain-flood"]
    share = with_lanes / without if with_lanes and without else None
    report.aim("p99 of others under a flood, with lanes / without", share, at_most=0.5)
