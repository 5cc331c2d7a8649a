"""Verdicts are borne out by the archive: rebuilt to the same token ids after edits, refused after tampering."""

from __future__ import annotations

import asyncio
import hashlib
import random
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from tests.integration.harness import (
    HANG_S,
    deploy,
    deploy_engine,
    owed_of,
    post,
    produce,
    read,
    running,
    until,
)
from tests.integration.test_cli_kafka import guard

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    from stream_guard.testing import Broker
    from tests.integration.harness import Deployment

TEXT = "# Touting\n\nAnswer `VIOLATES` or `SAFE`.\n\n## Violates (TT1 - Price)\n\n- TT1.a asks too much\n"
POSTS = 100


def write_policy(folder: Path, text: str) -> None:
    (folder / "touting").mkdir(parents=True, exist_ok=True)
    draft = folder / "touting" / ".draft"
    draft.write_text(text, "utf-8")
    draft.replace(folder / "touting" / "policy.md")


def command(broker: Broker, place: Deployment, *arguments: str) -> CompletedProcess[str]:
    settings = {k: v for k, v in place.environment().items() if k.startswith("STREAM_GUARD_")}
    return guard(broker, *arguments, **settings)


async def run_with_edits(place: Deployment, folder: Path, log: Path) -> list[dict[str, Any]]:
    """Judge three lots of posts under three versions of the policy; return the verdicts."""
    records: list[Any] = []
    with running(place, log) as run:
        await asyncio.to_thread(run.wait_for, "ready")
        for version in range(3):
            if version:
                write_policy(folder, f"{TEXT}- TT1.{'xyz'[version]} does it again\n")
                line = b'"event":"policies_switched"'
                await until(partial(has_lines, log, line, version))
            posts = (post(n, "offer") for n in range(version * POSTS, (version + 1) * POSTS))
            await produce(place.bootstrap, place.posts, posts)
            enough = partial(has_verdicts, (version + 1) * POSTS)
            records = await read(place.bootstrap, [place.verdicts], enough)
        assert run.end() == 0, run.tail()
    return [orjson.loads(record.value) for record in records]


def has_lines(log: Path, line: bytes, count: int) -> bool:
    return log.read_bytes().count(line) >= count


def has_verdicts(count: int, records: list[Any]) -> bool:
    return len(owed_of(records)) >= count


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.json"))


async def test_a_hundred_verdicts_are_rebuilt_after_two_edits_and_none_after_tampering(
    broker: Broker, new_topic: Callable[..., str], random_model: Path, tmp_path: Path
) -> None:
    folder, archive = tmp_path / "policies", tmp_path / "archive"
    write_policy(folder, TEXT)
    place = deploy_engine(
        broker.bootstrap_servers,
        new_topic,
        random_model,
        folder,
        STREAM_GUARD_POLICIES__ARCHIVE="folder",
        STREAM_GUARD_POLICIES__ARCHIVE_PATH=str(archive),
    )
    verdicts = await run_with_edits(place, folder, tmp_path / "log")
    assert len({verdict["policy"]["sha256"] for verdict in verdicts}) == 3
    assert len(entries(archive)) == 3
    ids = sorted(verdict["id"] for verdict in verdicts)
    chosen = random.Random(8).sample(ids, 100)  # noqa: S311 - no secret

    done = command(broker, place, "replay", *chosen, "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    told = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert {one["verdict"] for one in told} == set(chosen)
    assert [one["status"] for one in told] == ["identical"] * 100
    by_id = {verdict["id"]: verdict for verdict in verdicts}
    for one in told:
        provenance = by_id[one["verdict"]]["provenance"]
        assert one["prompt_ids_sha256"] == provenance["prompt_ids_sha256"]
        assert one["prompt_tokens"] == provenance["prompt_tokens"]

    judged = command(broker, place, "replay", chosen[0], "--judge", "--json")
    assert judged.returncode in (0, 6), judged.stderr
    assert "judged_again" in orjson.loads(judged.stdout)

    # Content changed under its name.
    first = by_id[chosen[0]]["policy"]["sha256"]
    (kept,) = (archive / first).iterdir()
    content = kept.read_bytes()
    kept.chmod(0o644)
    kept.write_bytes(content.replace(b"asks too much", b"asks too little"))
    done = command(broker, place, "replay", chosen[0], "--json")
    assert done.returncode == 6
    reason = orjson.loads(done.stdout)["reason"]
    assert str(kept) in reason
    assert "was altered after it was archived" in reason

    # Content and name changed: the policy's own digest, or the prompt's in the verdict, still tells.
    changes: tuple[tuple[str, str, str, str], ...] = (
        ("files", "policy.md", "IyBPdGhlcg==", "holds another policy"),
        (
            "prompt",
            "developer",
            "Say 0.",
            "no archive entry of the policy yields the verdict's prompt",
        ),
    )
    for part, field, value, says in changes:
        document = orjson.loads(content)
        document[part][field] = value
        forged = orjson.dumps(document)
        kept.unlink(missing_ok=True)
        kept = kept.with_name(f"{hashlib.sha256(forged).hexdigest()}.json")
        kept.write_bytes(forged)
        done = command(broker, place, "replay", chosen[0])
        assert done.returncode == 6
        assert says in done.stdout

    kept.unlink()
    done = command(broker, place, "replay", chosen[0])
    assert done.returncode == 6
    assert "has no policy touting@" in done.stdout


async def test_the_archive_in_a_topic_outlives_the_service_and_a_record_that_is_gone_is_named(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    folder = tmp_path / "policies"
    write_policy(folder, TEXT)
    place = deploy(
        broker.bootstrap_servers,
        new_topic,
        STREAM_GUARD_POLICIES__PATH=str(folder),
        STREAM_GUARD_KAFKA__ARCHIVE_TOPIC=f"archive-{tmp_path.name}",
    )
    verdicts = await run_with_edits(place, folder, tmp_path / "log")
    whole = command(broker, place, "replay", "--from", "0")
    assert whole.returncode == 0, whole.stderr + whole.stdout
    assert whole.stdout == f"{3 * POSTS} verdicts no_prompt\n"

    verdict = next(one for one in verdicts if one["source"]["offset"] == 0)
    tp = TopicPartition(place.posts, verdict["source"]["partition"])
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    await admin.delete_records({tp: RecordsToDelete(before_offset=1)})
    await admin.close()
    done = command(broker, place, "replay", verdict["id"], "--json")
    assert done.returncode == 6
    assert (
        "the record is gone: its partition begins at 1 now" in orjson.loads(done.stdout)["reason"]
    )


async def test_an_archive_that_would_lose_policies_is_refused_at_the_start(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    place = deploy(
        broker.bootstrap_servers,
        new_topic,
        STREAM_GUARD_KAFKA__ARCHIVE_TOPIC=new_topic("deletes"),
    )
    with running(place, tmp_path / "log") as run:
        assert await asyncio.to_thread(run.process.wait, HANG_S) == 2
        assert "cleanup.policy=delete" in run.tail()
    place.extra.update(
        STREAM_GUARD_POLICIES__ARCHIVE="folder",
        STREAM_GUARD_POLICIES__ARCHIVE_PATH=str(Path(__file__)),
    )
    with running(place, tmp_path / "log2") as run:
        assert await asyncio.to_thread(run.process.wait, HANG_S) == 2
        assert "policies.archive_path" in run.tail()


def test_bad_use_is_one_line_and_its_exit_code(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    place = deploy(broker.bootstrap_servers, new_topic)
    for arguments, code, says in (
        (["replay"], 2, "name verdict ids, or a range"),
        (["replay", "nonsense"], 2, "'nonsense' is not a verdict id"),
        (["replay", "0" * 32], 2, f"no verdict {'0' * 32} in {place.verdicts}"),
        (["replay", "--from", "soon"], 2, "--from soon: neither an offset nor a time"),
    ):
        done = command(broker, place, *arguments)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert done.stderr.startswith("stream-guard: ")
        assert says in done.stderr
        assert done.stderr.count("\n") == 1
    place.extra["STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS"] = "127.0.0.1:9"
    place.extra["STREAM_GUARD_KAFKA__REQUEST_TIMEOUT_MS"] = "2000"
    done = command(broker, place, "replay", "0" * 32)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert "127.0.0.1:9 (kafka.bootstrap_servers)" in done.stderr
    place.extra["STREAM_GUARD_POLICIES__ARCHIVE"] = "off"
    done = command(broker, place, "replay", "0" * 32)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "policies.archive" in done.stderr
