"""Posts travel from Kafka to verdicts through a model family of the tests: the real broker, program and engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jsonschema
import orjson

from stream_guard.policies.store import load_policies
from stream_guard.records.verdict_event import verdict_schema
from stream_guard.settings import EngineSettings
from tests.integration.harness import deploy, owed_of, post, produce, read, running
from tests.integration.test_reload import TEXT, write_policy
from tests.plain_family import load_plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stream_guard.testing import Broker

POSTS = 12


async def test_posts_are_judged_from_kafka_to_verdicts_by_a_second_family(
    broker: Broker, new_topic: Callable[..., str], random_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    write_policy(folder, TEXT)
    (folder / "routes.yaml").write_text("default: [touting]\n", "utf-8")
    place = deploy(
        broker.bootstrap_servers,
        new_topic,
        STREAM_GUARD_POLICIES__PATH=str(folder),
        STREAM_GUARD_POLICIES__ARCHIVE="off",  # it stores the prompts of the registry's family
        STREAM_GUARD_ENGINE__KIND="vllm",
        STREAM_GUARD_ENGINE__MODEL=str(random_model),
        # Random weights write no answer by themselves: an attempt without the grammar would only take time.
        STREAM_GUARD_ENGINE__CONSTRAINT="always",
        STREAM_GUARD_ENGINE__MAX_NUM_SEQS="8",
        STREAM_GUARD_ENGINE__MAX_MODEL_LEN="2048",
        STREAM_GUARD_CASCADE__LADDER="[]",
        OMP_NUM_THREADS="1",
        VLLM_CPU_OMP_THREADS_BIND="nobind",
    )
    await produce(place.bootstrap, place.posts, [post(number) for number in range(POSTS)])
    with running(place, tmp_path / "log", ("tests.integration.plain_app",)) as run:
        run.wait_for("ready")
        records = await read(
            place.bootstrap,
            [place.verdicts, place.dead],
            lambda got: len(owed_of(got)) >= POSTS,
        )
        assert run.end() == 0, run.tail()
    verdicts = [orjson.loads(record.value) for record in records if record.topic == place.verdicts]
    assert len(verdicts) == POSTS
    plain = load_plain(EngineSettings(model=str(random_model)))
    validator = jsonschema.Draft202012Validator(verdict_schema())
    for verdict in verdicts:
        validator.validate(verdict)
        provenance = verdict["provenance"]
        assert verdict["decision"] in ("violates", "safe")
        assert 0 <= verdict["confidence"]["value"] <= 1
        assert (provenance["tier"], provenance["parse_status"]) == ("safeguard", "ok")
        assert 1 <= provenance["output_tokens"] <= 4, "no channel, no reasoning: a bare label"
    (prefix,) = {verdict["provenance"]["prompt_sha256"] for verdict in verdicts}
    policy = load_policies(folder).policies["touting"]
    assert prefix == plain.prefix(policy, "low").sha256
