"""Edits of the policies go live in the real program while posts flow; a broken one leaves the last good set."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import jsonschema
import orjson

from stream_guard.policies.store import load_policies
from stream_guard.records.verdict_event import verdict_schema
from tests.integration.harness import (
    Deployment,
    Running,
    deploy,
    get,
    health,
    owed_of,
    post,
    produce,
    read,
    running,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stream_guard.testing import Broker

TEXT = "# Touting\n\nAnswer `VIOLATES` or `SAFE`.\n\n## Violates (TT1 - Price)\n\n- TT1.a asks too much\n"


def write_policy(folder: Path, text: str, slug: str = "touting") -> None:
    """Put a text in place at once, as an editor does."""
    (folder / slug).mkdir(parents=True, exist_ok=True)
    draft = folder / slug / ".draft"
    draft.write_text(text, "utf-8")
    draft.replace(folder / slug / "policy.md")


async def logged(run: Running, event: str) -> dict[str, Any]:
    return await asyncio.to_thread(run.wait_for, event)


async def all_verdicts(place: Deployment, count: int) -> list[dict[str, Any]]:
    records = await read(place.bootstrap, [place.verdicts], lambda got: len(owed_of(got)) >= count)
    return [orjson.loads(record.value) for record in records]


async def test_an_edit_goes_live_while_posts_flow_and_every_record_is_judged_once(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    folder = tmp_path / "policies"
    write_policy(folder, TEXT)
    old = load_policies(folder).policies["touting"]
    place = deploy(broker.bootstrap_servers, new_topic, STREAM_GUARD_POLICIES__PATH=str(folder))
    sent = 0
    edited = asyncio.Event()

    async def feed() -> None:
        nonlocal sent
        while not edited.is_set():
            await produce(place.bootstrap, place.posts, (post(sent + n) for n in range(100)))
            sent += 100

    with running(place, tmp_path / "log") as run:
        feeding = asyncio.create_task(feed())
        await logged(run, "ready")
        await all_verdicts(place, 200)
        write_policy(folder, TEXT + "- TT1.b asks for offers\n")
        switched = await logged(run, "policies_switched")
        edited.set()
        await feeding
        await produce(place.bootstrap, place.posts, (post(sent + n) for n in range(100)))
        sent += 100
        verdicts = await all_verdicts(place, sent)
        shown = await health(run)
        metrics = await get(run, "/metrics")
        assert run.end() == 0, run.tail()
    new = load_policies(folder).policies["touting"]
    assert switched["changed"] == ["touting"]
    assert shown["policies"] == {"touting": new.version}
    assert shown["policies_refused"] is None
    assert 'stream_guard_policy_reloads_total{outcome="switched"} 1.0' in metrics
    assert len(verdicts) == sent, "as many verdicts as posts"
    by_place: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for verdict in verdicts:
        source = verdict["source"]
        by_place[source["partition"]].append((source["offset"], verdict["policy"]["sha256"]))
    versions = [version for found in by_place.values() for _, version in sorted(found)]
    assert set(versions) == {old.sha256, new.sha256}
    for (
        found
    ) in by_place.values():  # in offset order: the old version, then the new, and never back
        in_order = [version == new.sha256 for _, version in sorted(found)]
        assert in_order == sorted(in_order)
    assert versions.count(new.sha256) >= 100, "what came after the switch is judged by the new text"


async def test_a_broken_edit_keeps_the_last_good_set_and_shows_in_health(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    folder = tmp_path / "policies"
    write_policy(folder, TEXT)
    good = load_policies(folder).policies["touting"]
    place = deploy(broker.bootstrap_servers, new_topic, STREAM_GUARD_POLICIES__PATH=str(folder))
    with running(place, tmp_path / "log") as run:
        await logged(run, "ready")
        write_policy(folder, TEXT + "- TT1.a is defined twice\n")
        refused = await logged(run, "policies_refused")
        assert refused["level"] == "warning"
        assert "SG109" in refused["error"]
        assert (await health(run))["policies_refused"] == refused["error"]
        await produce(place.bootstrap, place.posts, [post(n) for n in range(20)])
        verdicts = await all_verdicts(place, 20)
        assert {v["policy"]["sha256"] for v in verdicts} == {good.sha256}
        write_policy(folder, TEXT)
        await logged(run, "policies_restored")
        assert (await health(run))["policies_refused"] is None
        assert run.end() == 0, run.tail()


async def test_an_edit_may_bring_a_shadow_and_is_refused_without_a_topic_for_it(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    folder = tmp_path / "policies"
    write_policy(folder, TEXT)
    write_policy(folder, TEXT + "\nBe strict.\n", "strict")
    routes = folder / "routes.yaml"
    routes.write_text("default: [touting]\n")
    place = deploy(broker.bootstrap_servers, new_topic, STREAM_GUARD_POLICIES__PATH=str(folder))
    with running(place, tmp_path / "without") as run:
        await logged(run, "ready")
        routes.write_text(
            "default: [touting]\nshadows: [{policy: strict, percent: 100, key: id}]\n"
        )
        refused = await logged(run, "policies_refused")
        assert "kafka.shadow_topic" in refused["error"]
        assert run.end() == 0, run.tail()
    shadows = place.extra["STREAM_GUARD_KAFKA__SHADOW_TOPIC"] = new_topic("shadows")
    await produce(place.bootstrap, place.posts, [post(n, "[violates]") for n in range(20)])
    with running(place, tmp_path / "with") as run:
        await logged(run, "ready")
        records = await read(
            place.bootstrap, [place.verdicts, shadows], lambda got: len(owed_of(got)) >= 40
        )
        assert run.end() == 0, run.tail()
    validator = jsonschema.Draft202012Validator(verdict_schema())
    found = defaultdict(set)
    for record in records:
        verdict = orjson.loads(record.value)
        validator.validate(verdict)
        found[record.topic].add(
            (verdict["policy"]["id"], verdict["provenance"]["route_mode"], verdict["action"])
        )
    assert found == {
        place.verdicts: {("touting", "live", "review")},
        shadows: {("strict", "shadow", "none")},
    }
