"""What goes into a block comes out of it: as verdicts, as dead letters, or counted as skipped."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest

from stream_guard.core.errors import OperatorError, PromptError
from stream_guard.judging.contract import Judgement
from stream_guard.judging.engine.scripted import ScriptedJudge
from stream_guard.offline.backfill.block_judge import BlockJudge, Task
from stream_guard.offline.backfill.cluster import TRIES_MAX, BlockActor
from stream_guard.offline.backfill.counts import Counts
from stream_guard.offline.backfill.estimate import estimate
from stream_guard.offline.backfill.files import FileSource
from stream_guard.offline.backfill.places import TEMPORARY, place_of
from stream_guard.offline.backfill.run import cut_source
from stream_guard.offline.backfill.store import Store
from stream_guard.policies.store import read_policy_files
from stream_guard.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.judging.contract import JudgeRequest
    from stream_guard.offline.backfill.blocks import Block

POLICIES = Path(__file__).parents[4] / "policies"
SLUGS = ("age-restricted-goods-and-services", "dangerous-content")
SETTINGS: dict[str, Any] = {
    "engine": {"kind": "scripted"},
    "post": {"where": {"/kind": [None]}},
}


class Failing(ScriptedJudge):
    """Cannot judge a post with the word ``bomb``; remembers the order of its requests."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str]] = []

    def submit(
        self, requests: Sequence[JudgeRequest], deliver: Callable[[Sequence[Judgement]], None]
    ) -> None:
        self.asked += [(one.policy.id, one.post.id) for one in requests]
        bad = [one for one in requests if "bomb" in one.post.text]
        super().submit([one for one in requests if one not in bad], deliver)
        if bad:
            deliver([Judgement(one, error=PromptError("too long")) for one in bad])


@pytest.fixture
def task(tmp_path: Path) -> Task:
    posts = [{"id": f"p{n}", "text": f"post {n}"} for n in range(20)]
    posts[3]["text"] = "a bomb"
    posts[7]["kind"] = "like"
    lines = [orjson.dumps(post) for post in posts]
    lines[5] = b"no JSON"
    lines[9] = b""
    (tmp_path / "posts.jsonl").write_bytes(b"\n".join(lines))
    settings = Settings.model_validate(SETTINGS)
    source = FileSource(place_of(str(tmp_path), "SOURCE"), ["posts.jsonl"], settings.post)
    return Task(settings, source, read_policy_files(POLICIES), SLUGS)


def store_of(tmp_path: Path) -> Store:
    return Store(place_of(str(tmp_path / "out"), "--out"), "--out")


async def judge_all(task: Task, store: Store, rows: int = 8) -> list[Block]:
    blocks = await cut_source(task, rows)
    store.begin({}, blocks)
    async with BlockJudge(task, inner=Failing()) as judge:
        for block in blocks:
            store.write(block, await judge.judge(block))
    return blocks


async def test_the_sums_of_what_went_in_and_what_came_out_agree(task: Task, tmp_path: Path) -> None:
    store = store_of(tmp_path)
    blocks = await judge_all(task, store)
    total = Counts()
    for _, counts in store.counts(blocks):
        assert counts.fault(len(SLUGS)) is None
        total.add(counts)
    assert (total.places, total.blank, total.posts) == (20, 1, 17)
    assert total.skipped == {"/kind": 1}
    assert total.refused == {"json": 1}
    assert total.failed == {"prompt": 2}
    assert total.verdicts == 2 * 16
    rows = pq.read_table(tmp_path / "out/verdicts").to_pylist()
    assert len({row["id"] for row in rows}) == len(rows) == total.verdicts
    letters = pq.read_table(tmp_path / "out/dead-letters").to_pylist()
    assert sorted((one["offset"], one["reason"], one["policy"] or "") for one in letters) == [
        *((4, "prompt", slug) for slug in SLUGS),
        (6, "json", ""),
    ]
    assert {one["value"] for one in letters if one["reason"] == "json"} == {b"no JSON"}


async def test_prompts_of_one_policy_come_together(task: Task) -> None:
    (block,) = await cut_source(task, 100)
    inner = Failing()
    async with BlockJudge(task, inner=inner) as judge:
        await judge.judge(block)
    policies = [policy for policy, _ in inner.asked]
    assert policies == sorted(policies)
    assert len(inner.asked) == 2 * 17


async def test_a_block_that_is_judged_twice_is_in_the_output_once(
    task: Task, tmp_path: Path
) -> None:
    store = store_of(tmp_path)
    blocks = await judge_all(task, store)
    before = pq.read_table(tmp_path / "out/verdicts").num_rows
    async with BlockJudge(task, inner=Failing()) as judge:
        store.write(blocks[0], await judge.judge(blocks[0]))
    assert pq.read_table(tmp_path / "out/verdicts").num_rows == before
    left = tmp_path / "out/verdicts" / f"{TEMPORARY}killed"
    left.write_bytes(b"half")
    assert len(store.done()) == len(blocks)
    store.clean()
    assert not left.exists()


def test_a_write_that_fails_leaves_nothing_with_a_final_name(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    place = store.root / "verdicts" / "file"

    def fail(stream: Any) -> None:  # noqa: ANN401 - pyarrow's
        stream.write(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        place.write(fail)
    assert not place.is_file()


async def test_what_is_missing_or_changed_is_found_at_the_end(task: Task, tmp_path: Path) -> None:
    store = store_of(tmp_path)
    blocks = await judge_all(task, store)
    letters = tmp_path / "out/dead-letters" / blocks[0].file_name
    kept = letters.read_bytes()
    letters.unlink()
    with pytest.raises(OperatorError, match="delete it and run the same command again"):
        list(store.counts(blocks))
    letters.write_bytes(kept)
    (tmp_path / "out/verdicts" / blocks[1].file_name).unlink()
    with pytest.raises(OperatorError, match="is missing; run the same command again"):
        list(store.counts(blocks))


async def test_another_backfill_is_not_continued(task: Task, tmp_path: Path) -> None:
    store = store_of(tmp_path)
    blocks = await cut_source(task, 8)
    assert store.plan({"policy a": "1"}) is None
    store.begin({"policy a": "1"}, blocks)
    assert store.plan({"policy a": "1"}) == blocks
    with pytest.raises(OperatorError, match="policy a is 1 there and 2 here"):
        store.plan({"policy a": "2"})
    foreign = Store(place_of(str(tmp_path / "foreign"), "--out"), "--out")
    (tmp_path / "foreign/verdicts").mkdir(parents=True)
    (tmp_path / "foreign/verdicts/mine.parquet").write_bytes(b"x")
    with pytest.raises(OperatorError, match="holds verdicts without a manifest"):
        foreign.plan({})


def batch_of(block: Block) -> dict[str, Any]:
    return {name: np.array([value]) for name, value in asdict(block).items()}


async def test_an_actor_writes_a_block_once_and_a_block_that_kills_actors_ends_the_run(
    task: Task, tmp_path: Path
) -> None:
    store = store_of(tmp_path)
    first, second, *_ = await cut_source(task, 8)
    actor = BlockActor(task, store)
    answer = await asyncio.to_thread(actor, batch_of(first))
    assert answer == {"index": [0], "rows": [8], "kind": [""], "error": [""]}
    (file,) = (tmp_path / "out/verdicts").iterdir()
    written = file.stat().st_mtime_ns
    await asyncio.to_thread(actor, batch_of(first))
    assert file.stat().st_mtime_ns == written
    for _ in range(TRIES_MAX):
        store.note_try(second)  # as by actors that died
    answer = await asyncio.to_thread(actor, batch_of(second))
    assert answer["kind"] == ["EngineError"]
    assert "block 1 (posts.jsonl, from row 9) was begun 5 times" in answer["error"][0]
    store.forget_tries()
    answer = await asyncio.to_thread(actor, batch_of(second))
    assert answer["error"] == [""]


async def test_what_an_actor_meets_comes_back_as_it_was(task: Task, tmp_path: Path) -> None:
    store = store_of(tmp_path)
    (block,) = await cut_source(task, 100)
    (tmp_path / "posts.jsonl").unlink()
    answer = await asyncio.to_thread(BlockActor(task, store), batch_of(block))
    assert answer["kind"] == ["SettingsError"]
    assert "give every node the same files" in answer["error"][0]
    assert not store.done()


async def test_an_estimate_scales_the_sample(task: Task) -> None:
    made = await estimate(
        task,
        block_rows=2,
        sample_rows=10,
        actors=4,
        price_per_hour=2.0,
        inner=Failing(),
    )
    assert 0 < made.sample.places <= 10
    found = made.describe()
    assert found["rows"] == 20
    assert found["posts"] == round(made.sample.posts * 20 / made.sample.places)
    assert found["cost"] == round(found["actor_hours"] * 2.0, 2)


@pytest.mark.parametrize(
    ("counts", "fault"),
    [
        (Counts(places=3, posts=2), "3 rows went in, and 2 were read"),
        (Counts(places=2, posts=2, verdicts=3), "2 posts under 2 policies have 3 outcomes"),
        (Counts(places=2, posts=2, verdicts=4), None),
    ],
)
def test_sums_that_differ_are_said(counts: Counts, fault: str | None) -> None:
    assert counts.fault(2) == fault
    assert Counts.of(orjson.loads(orjson.dumps(counts.describe()))) == counts
