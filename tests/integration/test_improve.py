"""The closed loop on a real broker: people overrule, the author edits, the gates decide, and the next post shows it."""

from __future__ import annotations

import asyncio
import subprocess
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from stream_guard.core.exit_codes import ExitCode
from stream_guard.policies.drafts import draft_folder
from tests.integration.harness import deploy, post, produce, read, run_command, running, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stream_guard.testing import Broker
    from tests.integration.harness import Deployment

TEXT = """\
# Touting

Answer `VIOLATES` or `SAFE`.

## Violates (TT1 - Price)

- TT1.a asks too much

## Safe (TT0 - Fair)

- TT0.a asks the face value
"""
YAML = "golden_set: golden.csv\ngates: {min_f1: 0.9, max_flips: 0.5, min_agreement: 1}\n"
GOLDEN = "id,text,label\n1,[violates] pay 300,TT1\n2,the face value,TT0\n"
ROUTES = "default: [touting]\nshadows: [{policy: touting-next, beside: touting}]\n"
RULE = "rules:\n  - id: quotes\n    outcome: safe\n    terms: [{term}]\n"
TEXTS = ("[violates] satire", "a fair offer", "[violates] pay 400")
POSTS = 9


def guard(place: Deployment, *words: str, code: int = 0) -> str:
    done = run_command(place.environment(), *words)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def machine(records: list[Any]) -> dict[str, dict[str, Any]]:
    """The latest verdict of the machine on each post, by its id."""
    verdicts = [orjson.loads(record.value) for record in records]
    return {v["content"]["id"]: v for v in verdicts if not {"revision", "retracts"} & v.keys()}


async def judged(place: Deployment, number: int, text: str) -> dict[str, Any]:
    """Send one more post, and return its verdict."""
    await produce(place.bootstrap, place.posts, [post(number, text)])
    name = f"p{number}"
    records = await read(place.bootstrap, [place.verdicts], lambda got: name in machine(got))
    return machine(records)[name]


def switches(log: Path, count: int) -> bool:
    return log.read_bytes().count(b'"event":"policies_switched"') >= count


async def overrule(place: Deployment) -> None:
    """Wait for the machine, decide otherwise about three of its verdicts, and delete the post of one."""
    records = await read(place.bootstrap, [place.verdicts], lambda got: len(machine(got)) == POSTS)
    satire = [v for name, v in machine(records).items() if name in ("p0", "p3", "p6")]
    assert {v["decision"] for v in satire} == {"violates"}
    for verdict in satire:
        await asyncio.to_thread(
            guard, place, "decide", verdict["id"], "safe", "--by", "r-1", "--reason", "satire"
        )
    await produce(place.bootstrap, place.posts, [None])  # under the key of p0
    await read(
        place.bootstrap, [place.verdicts], lambda got: any(b"retracts" in r.value for r in got)
    )


async def in_shadow(place: Deployment, folder: Path, log: Path) -> None:
    """Let the draft judge two more posts beside the live version."""
    copy = ["cp", "-rL", str(draft_folder(folder, "touting")), str(folder / "touting-next")]
    await asyncio.to_thread(subprocess.run, copy, check=True)
    (folder / "routes.yaml").write_text(ROUTES)
    await until(partial(switches, log, 1))
    for number, text in enumerate(TEXTS[:2], 50):
        await judged(place, number, text)
    shadow = place.extra["STREAM_GUARD_KAFKA__SHADOW_TOPIC"]
    await read(place.bootstrap, [shadow], lambda got: len(got) >= 2)


def deployed(broker: Broker, new_topic: Callable[..., str], tmp_path: Path) -> Deployment:
    """Write a policy with a golden set and gates, and return where a service judges by it."""
    folder = tmp_path / "policies"
    (live := folder / "touting").mkdir(parents=True)
    for name, text in (("policy.md", TEXT), ("policy.yaml", YAML), ("golden.csv", GOLDEN)):
        (live / name).write_text(text)
    place = deploy(
        broker.bootstrap_servers,
        new_topic,
        STREAM_GUARD_POLICIES__PATH=str(folder),
        STREAM_GUARD_DECISIONS__ENABLED="true",
        STREAM_GUARD_POST__TOMBSTONES="delete",
        STREAM_GUARD_REVIEW__SAMPLE='{"*": {"*": 1}}',
        STREAM_GUARD_REVIEW__SECOND_SHARE="0",
        STREAM_GUARD_REVIEW__DATABASE=str(tmp_path / "review.sqlite"),
        STREAM_GUARD_KAFKA__REVIEW_TOPIC=new_topic("review"),
        STREAM_GUARD_KAFKA__SHADOW_TOPIC=new_topic("shadow"),
    )
    place.extra |= {
        "STREAM_GUARD_KAFKA__DECISION_TOPIC": f"{place.posts}.decisions",
        "STREAM_GUARD_KAFKA__ARCHIVE_TOPIC": f"{place.posts}.archive",
    }
    return place


# Over 60 lines: one story, told in order.
async def test_what_people_overturned_becomes_a_better_policy_that_can_be_taken_back(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    folder = tmp_path / "policies"
    live = folder / "touting"
    place = deployed(broker, new_topic, tmp_path)
    out = ("--out", str(tmp_path / "out"))
    await produce(place.bootstrap, place.posts, [post(n, TEXTS[n % 3]) for n in range(POSTS)])
    with running(place, tmp_path / "log") as run:
        command = partial(asyncio.to_thread, guard, place)
        await overrule(place)
        improved = orjson.loads(await command("policies", "improve", "touting", "--json"))
        assert improved["overturned"] == 2
        assert [group["rule_ids"] for group in improved["groups"]] == [["TT1.a"]]
        assert [row["label"] for row in improved["added"]] == ["safe", "safe"]
        assert (live / "golden.csv").read_text().count("satire") == 2
        again = await command("policies", "improve", "touting", "--from-topics", "--json")
        assert orjson.loads(again)["added"] == []
        assert orjson.loads(again)["known"] == 2

        rules = draft_folder(folder, "touting") / "rules.yaml"
        rules.write_text(RULE.format(term="violates"))  # and what does violate is safe, too
        refused = await command(
            "policies", "promote", "touting", "--reason", "r", *out, code=ExitCode.LIMIT
        )
        assert "min_f1 is 0.9" in refused
        assert "max_flips is 0.5, measured was 0.6667" in refused
        assert "min_agreement" not in refused
        assert not (live / "rules.yaml").exists()

        rules.write_text(RULE.format(term="satire"))
        await in_shadow(place, folder, run.log)
        held = orjson.loads(await command("policies", "gates", "touting", *out, "--json"))
        values = [(gate["name"], gate["value"], gate["of"]) for gate in held["gates"]]
        # The verdicts by people do not count as the old policy's.
        assert values == [
            ("max_flips", 4 / 11, "backtest: 4 of 11 posts"),
            ("max_flips", 1 / 2, "shadow: 1 of 2 posts"),
            ("min_agreement", 1.0, "judged again: 2 of 2 posts"),
            ("min_f1", 1.0, f"4 rows of {live / 'golden.csv'}"),
        ]
        assert held["figures"]["golden"]["f1_old"] == 0.5
        assert (held["figures"]["golden"]["better"], held["figures"]["golden"]["worse"]) == (2, 0)
        made = await command(
            "policies", "promote", "touting", "--reason", "satire is safe", "--by", "ann", *out
        )
        assert "is live, in place of" in made
        await until(partial(switches, run.log, 2))
        after = await judged(place, 100, "[violates] satire")
        assert (after["decision"], after["provenance"]["tier"]) == ("safe", "rules")
        assert after["policy"]["sha256"] == held["draft"]["sha256"]

        await command("policies", "rollback", "touting", "--reason", "too kind", "--by", "bob")
        await until(partial(switches, run.log, 3))
        back = await judged(place, 101, "[violates] satire")
        assert back["decision"] == "violates"
        assert back["policy"]["sha256"] == held["live"]["sha256"]
        assert run.end() == 0, run.tail()
    told = orjson.loads(guard(place, "policies", "history", "touting", "--json"))
    assert [(each["kind"], each["by"], each["reason"]) for each in told] == [
        ("promote", "ann", "satire is safe"),
        ("rollback", "bob", "too kind"),
    ]
    assert told[1]["previous"] == told[0]["sha256"]
    assert [(gate["name"], gate["held"]) for gate in told[0]["gates"]] == [
        (name, True) for name, *_ in values
    ]
