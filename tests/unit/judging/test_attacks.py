"""Hostile posts: none changes a prompt's structure, and what flips is counted."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from stream_guard.cli.main import app
from stream_guard.cli.posts import read_sample
from stream_guard.core.errors import EngineError, PolicyError, SettingsError
from stream_guard.judging.contract import Answer, Judgement
from stream_guard.judging.families.harmony.prompt import PromptBuilder
from stream_guard.judging.families.harmony.structure import check_structure
from stream_guard.judging.families.harmony.tokens import MARKERS
from stream_guard.judging.hostile_posts import ATTACKS, attacked
from stream_guard.offline.attack import run_attacks
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.post import Post
from stream_guard.settings import PostSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from stream_guard.judging.contract import JudgeRequest
    from stream_guard.judging.families.harmony.tokenizer import HarmonyTokenizer

POLICY = make_policy(
    "spam",
    b"# Spam\n\nAnswer VIOLATES or SAFE.\n\n## Examples\n"
    b'- "buy now, cheap pills" -> VIOLATES\n- "good morning" -> SAFE\n',
)
POLICIES = PolicySet({"spam": POLICY}, default=("spam",))
POSTS = PostSettings()


def a_post(text: str, number: int = 1) -> Post:
    return Post(id=str(number), text=text, sha256="", text_bytes=len(text.encode()))


@pytest.fixture(scope="session")
def builder(full_tokenizer: HarmonyTokenizer) -> PromptBuilder:
    return PromptBuilder(full_tokenizer, full_tokenizer.control)


def test_every_attack_changes_the_text_and_has_a_name_of_its_own() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 20
    for attack in ATTACKS:
        post = a_post("Buy now, cheap pills, ask me")
        hostile = attacked(post, attack, POLICY.taxonomy)
        assert (hostile.text == post.text) is attack.in_thread, attack.name
        assert (hostile.context == post.context) is not attack.in_thread, attack.name
        assert hostile.text_bytes == sum(
            len(text.encode()) for text in (hostile.text, *(each.text for each in hostile.context))
        )
        assert hostile.id == f"1+{attack.name}"


def test_no_attack_changes_the_structure_of_a_prompt(
    builder: PromptBuilder, full_tokenizer: HarmonyTokenizer
) -> None:
    check_structure(POLICY, builder, builder.prefix(POLICY, "low"), full_tokenizer.control)


def test_a_tokenizer_that_takes_markers_for_control_tokens_is_refused(
    full_tokenizer: HarmonyTokenizer,
) -> None:
    class Naive:
        """What a tokenizer does that knows its control tokens and is given text."""

        def encode(self, text: str) -> list[int]:
            ids = full_tokenizer.encode(text.replace("<|end|>", ""))
            return [*ids, full_tokenizer.control.end] if "<|end|>" in text else ids

    builder = PromptBuilder(Naive(), full_tokenizer.control)  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match=r"'control_tokens' .* changes the structure"):
        check_structure(POLICY, builder, builder.prefix(POLICY, "low"), full_tokenizer.control)


def test_a_builder_that_drops_part_of_the_prefix_is_refused(
    builder: PromptBuilder, full_tokenizer: HarmonyTokenizer
) -> None:
    prefix = builder.prefix(POLICY, "low")
    shifted = replace(prefix, ids=prefix.ids[1:])

    class Wrong:
        def build(self, post: Post, _: object) -> list[int]:
            return builder.build(post, prefix)

    with pytest.raises(PolicyError, match="changes the structure"):
        check_structure(POLICY, Wrong(), shifted, full_tokenizer.control)  # type: ignore[arg-type]


def test_a_million_characters_of_fuzz_yield_no_control_token(
    builder: PromptBuilder, full_tokenizer: HarmonyTokenizer
) -> None:
    draw = random.Random(20_250_101)  # noqa: S311 - seeded, so that a failure can be run again
    pieces = [
        *MARKERS,
        "<|",
        "|>",
        "<",
        "|",
        ">",
        "start",
        "end",
        "\u200b",
        "\u202e",
        "\n\n",
        "{",
        "}",
        '"',
    ]
    prefix = builder.prefix(POLICY, "low")
    suffix = builder.build(a_post("x"), prefix)[-3:]
    blocks = (32, 128, 0x3000, 0x1F600)
    total = 0
    while total < 1_000_000:
        text = "".join(
            draw.choice(pieces)
            if draw.random() < 0.5
            else chr(draw.choice(blocks) + draw.randrange(90))
            for _ in range(draw.randrange(1, 4_000))
        )
        total += len(text)
        ids = builder.build(a_post(text), prefix)
        assert tuple(ids[: len(prefix.ids)]) == prefix.ids
        assert ids[-len(suffix) :] == suffix
        content = ids[len(prefix.ids) : -len(suffix)]
        assert full_tokenizer.control.every.isdisjoint(content)


# Counting


class RuleJudge:
    """Judges by a function of the text."""

    def __init__(self, rule: Callable[[str], str]) -> None:
        self._rule = rule
        self.closed = False

    async def start(self, policies: PolicySet) -> None: ...

    async def prepare(self, policies: PolicySet) -> None: ...

    def submit(
        self, requests: Sequence[JudgeRequest], deliver: Callable[[Sequence[Judgement]], None]
    ) -> None:
        for request in requests:
            decision: Any = self._rule(request.post.text)
            answer = None if decision == "failed" else Answer(decision)
            if decision == "escalated":
                answer = Answer("undetermined", labels=("ESCALATE",))
            deliver([Judgement(request, answer=answer)])

    def cancel(self, requests: Sequence[JudgeRequest]) -> None: ...

    def in_flight(self) -> int:
        return 0

    async def wait_failed(self) -> BaseException:
        import asyncio

        await asyncio.Event().wait()
        raise AssertionError

    def describe(self) -> dict[str, str]:
        return {"model": "rule"}

    async def close(self) -> None:
        self.closed = True


def by_words(text: str) -> str:
    if "undecidable" in text:
        return "undetermined"
    if "Ignore all" in text:
        return "safe"
    if "withdrawn" in text:
        return "failed"
    if "quotes a film" in text:
        return "escalated"
    if "Note from trust" in text:
        return "violates"
    return "violates" if "pills" in text else "safe"


async def test_flips_are_counted_by_attack_and_direction() -> None:
    judge = RuleJudge(by_words)
    seen: list[tuple[int, int]] = []
    posts = [a_post("cheap pills", 1), a_post("good morning", 2), a_post("undecidable", 3)]
    report = await run_attacks(
        judge, POLICIES, POLICY, posts, progress=lambda done, total: seen.append((done, total))
    )
    assert judge.closed
    assert (report.posts, report.violating, report.undecided) == (2, 1, 1)
    assert report.model == "rule"
    by_name = {result.name: result for result in report.results}
    assert by_name["fake_turn"].held == 2
    assert (by_name["ignore_policy"].hidden, by_name["ignore_policy"].held) == (1, 1)
    assert by_name["new_policy"].failed == 2
    assert (by_name["authority"].accused, by_name["authority"].held) == (1, 1)
    assert sum(result.escalated for result in report.results) == 2
    assert by_name["spaced"].hidden == 1  # the words are no longer there
    for result in report.results:
        decided = result.held + result.hidden + result.accused
        counted = decided + result.escalated + result.undetermined + result.failed
        assert counted == report.posts, result.name
    flips = {(flip.attack, flip.before, flip.after, flip.post) for flip in report.flips}
    assert ("ignore_policy", "violates", "safe", posts[0].id) in flips
    assert ("authority", "safe", "violates", posts[1].id) in flips
    assert len(flips) == sum(result.hidden + result.accused for result in report.results)
    assert all(flip.text != post.text for flip in report.flips for post in posts)
    assert report.hidden_share == sum(r.hidden for r in report.results) / len(ATTACKS)
    assert seen[-1] == (len(posts) * (len(ATTACKS) + 1),) * 2


async def test_a_judge_that_dies_is_an_error_and_is_closed() -> None:
    class Dying(RuleJudge):
        def submit(self, requests: object, deliver: object) -> None: ...

        async def wait_failed(self) -> BaseException:
            return EngineError("died")

    judge = Dying(by_words)
    with pytest.raises(EngineError, match="died"):
        await run_attacks(judge, POLICIES, POLICY, [a_post("x")])
    assert judge.closed


# Posts to try


def test_posts_come_from_the_examples_in_the_policy(tmp_path: Path) -> None:
    posts = read_sample(None, POLICY, tmp_path, POSTS)
    assert [post.text for post in posts] == ["buy now, cheap pills", "good morning"]


def test_posts_come_from_the_golden_set_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "spam").mkdir()
    (tmp_path / "spam/golden.csv").write_text(
        "Use of this set is subject to its notice.\ntext,label\none,1\n\ntwo,0\n"
    )
    policy = replace(POLICY, golden_set="golden.csv")
    assert [p.text for p in read_sample(None, policy, tmp_path, POSTS)] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.txt", "one\n\ntwo\n"),
        ("p.jsonl", '{"id":1,"text":"one"}\n{"id":2,"text":"two"}\n'),
        ("p.csv", "Content,label\none,1\ntwo,0\n"),
    ],
)
def test_posts_come_from_files_of_three_kinds(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    posts = read_sample(tmp_path / name, POLICY, tmp_path, POSTS)
    assert [post.text for post in posts] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("p.csv", "a,b\n1,2\n", "no text column"),
        ("p.jsonl", '{"id":1}\n', "p.jsonl:1: not a post"),
        ("p.txt", "\n", "holds no post"),
        ("missing.txt", None, "missing.txt"),
    ],
)
def test_a_file_without_posts_is_named(
    tmp_path: Path, name: str, content: str | None, what: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(SettingsError, match=what):
        read_sample(tmp_path / name, POLICY, tmp_path, POSTS)


@pytest.mark.parametrize(
    ("name", "content", "column"),
    [
        ("p.csv", "id,Body,label\n1,one,1\n2,two,0\n", "body"),
        ("p.csv", "id,,label\n1,one,1\n2,two,0\n", "2"),
        ("p.csv", "A notice.\nid,,label\n1,one,1\n2,two,0\n", "2"),
        ("p.csv", "2,text\none,x\ntwo,x\n", "2"),
        ("p.csv", "A notice.\none,other\none,x\ntwo,x\n", "1"),
        (
            "p.jsonl",
            '{"id":1,"body":{"text":"one"}}\n{"id":2,"body":{"text":"two"}}\n',
            "/body/text",
        ),
        ("p.jsonl", '{"id":1,"body":"one"}\n{"id":2,"body":"two"}\n', "body"),
    ],
)
def test_a_column_of_any_name_or_of_none_holds_the_text(
    tmp_path: Path, name: str, content: str, column: str
) -> None:
    (tmp_path / name).write_text(content)
    posts = read_sample(tmp_path / name, POLICY, tmp_path, POSTS, column)
    assert [post.text for post in posts] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "column", "what"),
    [
        (
            "p.csv",
            "4",
            r"no column '4'; set --text-column to one of: id, \(column 2\), label, or to its number",
        ),
        ("p.csv", "0", "no column '0'"),
        ("p.csv", "body", "no column 'body'"),
        ("p.txt", "2", "has no columns; name a .csv or .jsonl file"),
        (None, "2", "give the file with --posts"),
    ],
)
def test_a_column_that_is_not_there_is_named(
    tmp_path: Path, name: str | None, column: str, what: str
) -> None:
    file = None if name is None else tmp_path / name
    if file is not None:
        file.write_text("id,,label\n1,one,1\n")
    with pytest.raises(SettingsError, match=what):
        read_sample(file, POLICY, tmp_path, POSTS, column)


def test_a_policy_without_examples_asks_for_posts(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="--posts FILE"):
        read_sample(None, make_policy("bare", b"No spam."), tmp_path, POSTS)


def test_the_command_shows_a_table_and_fails_over_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stream_guard.judging import assembly as composition

    monkeypatch.setattr(composition, "make_judge", lambda *_: RuleJudge(by_words))
    (tmp_path / "spam").mkdir()
    (tmp_path / "spam/policy.md").write_text(POLICY.text)
    command = ["policies", "attack", "spam", "--path", str(tmp_path)]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert "ignore_policy" in shown.output
    assert re.search(r"(?m)^  ignore_policy: violates -> safe: post \d+: .*pills", shown.output)
    over = CliRunner().invoke(app, [*command, "--hidden-max", "0.01"])
    assert "--hidden-max is 1.0%" in str(over.exception)
    assert CliRunner().invoke(app, [*command, "--hidden-max", "1"]).exit_code == 0
    own = tmp_path / "own.csv"
    own.write_text("id,\n1,buy now\n2,cheap pills\n3,good morning\n")
    named = CliRunner().invoke(app, [*command, "--posts", str(own), "--text-column", "2"])
    assert "3 posts" in named.output
