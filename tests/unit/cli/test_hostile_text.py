"""No command lets text from a record, a file or a folder name steer a terminal or forge a line of its output.

Each command of the program is tried with such text everywhere that it can stand. A new command fails here until it is
tried as well.
"""

from __future__ import annotations

import ast
import json
import sys
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import orjson
import pytest
import typer
from rich.console import Console

import stream_guard.cli
from stream_guard.cli.main import app, main
from stream_guard.cli.terminal import say, styled, visible, write_json_line
from stream_guard.cli.views.live import LiveView
from stream_guard.core.errors import BrokerError, JsonError, LimitError
from stream_guard.kafka.dead_letter_reader import Survey
from stream_guard.offline.audit.backtest import Outcome
from stream_guard.offline.audit.replay import Replayed
from stream_guard.offline.improve.rulings import Place, Ruling
from stream_guard.offline.review.projection import Projection
from stream_guard.offline.review.store import Store
from stream_guard.policies.drafts import make_draft
from stream_guard.policies.store import load_policies
from stream_guard.records.dead_letter import DeadLetter, read_dead_letter
from stream_guard.records.dead_letter_event import build_dead_letter
from stream_guard.records.review_item import build_review_item
from stream_guard.service.diagnostics.topic_advice import Advice
from stream_guard.settings import KafkaSettings
from stream_guard.testing import MemoryRecord
from tests.decisions import make_decision
from tests.unit.offline.review.topics import KAFKA, Topics, apply
from tests.verdicts import make_verdict
from tools.syntax_tree import syntax_tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


NAME: Final = (
    "a\x1b[31mb\x1b]8;;http:x\x07c\x1b]52;c;eA==\x1b\\\x9b31md\x9d8;;\u202ee\u2066f\u200f"
    "\r\nFORGED: ok\u2028FORGED\x85\x7f[bold]\U000e0041"
)
"""What a file's or folder's name may hold."""
TEXT: Final = f"{NAME}\x00\x08\ud83d"
"""What a post's field may hold: also NUL, backspace and half an emoji."""
SENT: Final = NAME + "\x00\x08"
"""The same as far as UTF-8 can hold it."""
SCRIPTED: Final = {
    "STREAM_GUARD_ENGINE__KIND": "scripted",
    "STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9",
    "STREAM_GUARD_KAFKA__REQUEST_TIMEOUT_MS": "1000",
}
POLICY: Final = (
    f"# Spam {NAME}\n\n## S0: fine\n\n## S1: Advertising {NAME}\n\nSell nothing {NAME}.\n"
)


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:  # noqa: ANN401 - typer's own click
    """Yield the words of every command of the program."""
    if not hasattr(command, "commands"):
        yield path
        return
    for name, inner in command.commands.items():
        yield from leaves(inner, (*path, name))


def hostile_verdict() -> dict[str, Any]:
    verdict = make_verdict(decision="violates", category="S1")
    verdict["content"] |= {"id": SENT, "author": SENT}
    verdict["source"]["topic"] = SENT
    verdict["policy"] |= {"id": SENT, "version": SENT, "rule_ids": [SENT], "rationale": SENT}
    verdict["provenance"] |= {"model": SENT, "tier": SENT}
    return verdict


def hostile_letter() -> MemoryRecord:
    source = MemoryRecord("posts", 3, 41, 0, SENT.encode(), SENT.encode(), [(SENT, SENT.encode())])
    kafka = KafkaSettings(dead_letter_topic="dead", group_id="g")
    made = build_dead_letter(
        source, JsonError(SENT), kafka=kafka, failed_ms=1, policy_id=None, attempts=1
    )
    hostile = {"sg_reason": SENT.encode(), "sg_topic": SENT.encode(), "sg_attempts": SENT.encode()}
    headers = [(name, hostile.get(name, value)) for name, value in made.headers]
    return MemoryRecord("dead", 0, 7, 0, made.key, made.value, headers)


class Reader:
    """Stands in for the reader of the dead-letter topic; the topic holds one dead letter."""

    def __init__(self, *_: object) -> None:
        return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def ends(self) -> dict[Any, int]:
        return {}

    async def read(self, _ends: object) -> AsyncIterator[MemoryRecord]:
        yield hostile_letter()

    async def letter(self, record: MemoryRecord) -> DeadLetter | None:
        return read_dead_letter(record)


@dataclass
class Stage:
    """Files with hostile names and contents, and the fixture that replaces what needs a broker."""

    path: Path
    patch: pytest.MonkeyPatch
    lines: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        post = {"id": TEXT, "text": f"[violates] {TEXT}", "author": TEXT, TEXT: 1}
        self.posts = self.path / f"{NAME}.jsonl"
        # Escaped, so that half an emoji stands in the file as JavaScript writes it.
        self.posts.write_text(f"{json.dumps(post)}\n{{}}\n{json.dumps(TEXT)}\n")
        self.folder = self.path / f"policies {NAME}"
        (self.folder / "spam").mkdir(parents=True)
        (self.folder / "spam" / "policy.md").write_text(POLICY, newline="")
        (self.folder / "routes.yaml").write_text("default: [spam]\n")
        self.bad_folder = self.path / "bad"
        (self.bad_folder / NAME).mkdir(parents=True)
        (self.bad_folder / NAME / "policy.md").write_text(POLICY)
        (self.bad_folder / "routes.yaml").write_text(f"{json.dumps(NAME)}: [{json.dumps(NAME)}]\n")
        self.verdicts = self.path / f"verdicts {NAME}.jsonl"
        self.verdicts.write_bytes(orjson.dumps(hostile_verdict()))
        self.config = self.path / f"{NAME}.toml"
        self.config.write_text(f"[kafka]\n{json.dumps(NAME)} = {json.dumps(NAME)}\n")
        self.csv = self.path / f"{NAME}.csv"
        self.csv.write_text(f'id,text,label\n"{NAME}","[violates] {NAME}","{NAME}"\n', newline="")

    def returns(self, target: str, value: object) -> None:
        """Replace an asynchronous function by one that returns this, or raises it."""

        async def stand_in(*_: object, **__: object) -> object:
            if isinstance(value, Exception):
                raise value
            return value

        self.patch.setattr(target, stand_in)

    def tries(self, *words: str | Path) -> None:
        self.lines.append([str(word) for word in words])


def classify(stage: Stage) -> None:
    at = ("--path", stage.folder)
    stage.tries("classify", stage.posts, *at)
    stage.tries("classify", stage.posts, *at, "--json")
    stage.tries("classify", TEXT[:-1], *at, "--explain")
    stage.tries("classify", "x", *at, "--policy", SENT)
    stage.tries("classify", stage.path / f"none{NAME}.jsonl", *at)
    stage.tries("classify", "x", "--path", stage.bad_folder)
    stage.tries("classify", "x", "--config", stage.config)
    stage.tries("classify", "x", f"--{NAME}")


def studio(stage: Stage) -> None:
    posts = stage.path / f"good {NAME}.jsonl"
    posts.write_text(json.dumps({"id": TEXT, "text": f"[violates] {TEXT}"}))
    stage.patch.setenv("STREAM_GUARD_STUDIO__SOCKET", str(stage.path / "run" / "s"))
    stage.patch.setenv("STREAM_GUARD_STUDIO__IDLE_TIMEOUT_S", "0.01")
    at = ("--path", stage.folder, "--no-prompt")
    stage.tries("studio", posts, *at)
    stage.tries("studio", stage.posts, *at)
    stage.tries("studio", NAME, *at)
    stage.tries("studio", "--policy", NAME, *at)
    stage.tries("studio", "--path", stage.bad_folder)


def evaluate(stage: Stage) -> None:
    golden = stage.path / f"golden {NAME}.jsonl"
    rows = [{"id": f"{n}{NAME}", "text": f"[violates] {NAME}", "label": NAME} for n in range(3)]
    golden.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = ("--path", stage.folder, "--out", stage.path / f"out {NAME}")
    line = ("eval", "--policy", "spam", golden, *out)
    stage.tries(*line)  # no such label
    stage.tries(*line, "--map", f"{NAME}=safe")
    stage.tries(*line, "--map", f"{NAME}=safe", "--json", "--min-f1", "1")
    stage.tries(*line, "--map", f"{NAME}=safe", "--against", "high")
    stage.tries(*line, "--map", NAME)
    stage.tries(*line, "--against", NAME)


def run(stage: Stage) -> None:
    stage.tries("run", "--config", stage.config)
    stage.tries("run", "--config", stage.path / f"none{NAME}.toml")
    stage.tries("run", NAME)


def console(stage: Stage) -> None:
    stage.tries("console", "--config", stage.path / f"none{NAME}.toml")
    stage.patch.setenv("STREAM_GUARD_CONSOLE__TOKENS_FILE", str(stage.path / f"none{NAME}.json"))
    stage.tries("console")


def backfill(stage: Stage) -> None:
    posts = stage.path / f"posts{NAME}.jsonl"
    posts.write_bytes(orjson.dumps({"id": SENT, "text": SENT}) + b"\n" + SENT.encode() + b"\n")
    options = ("--policy", "dangerous-content", "--out", stage.path / f"out{NAME}")
    stage.tries("backfill", stage.path / f"none{NAME}.jsonl", *options)
    stage.tries("backfill", posts, "--policy", NAME)
    stage.tries("backfill", posts, *options, "--text-column", NAME, "--dry-run")


def check(stage: Stage) -> None:
    stage.returns("stream_guard.kafka.input_topics.existing_topics", BrokerError(SENT))
    stage.tries("check")
    stage.tries("check", "--config", stage.config)
    stage.patch.setenv("STREAM_GUARD_POLICIES__PATH", str(stage.bad_folder))
    stage.tries("check")


def doctor(stage: Stage) -> None:
    found = [Advice(SENT, "warning", SENT, SENT), Advice(SENT, "ok", SENT)]
    stage.patch.setattr("stream_guard.service.diagnostics.doctor.Doctor.run", lambda _: iter(found))
    stage.tries("doctor")
    stage.tries("doctor", "--json")


def show_config(stage: Stage) -> None:
    stage.patch.setenv("STREAM_GUARD_KAFKA__CLIENT_ID", NAME)
    stage.tries("config")
    stage.tries("config", "--config", stage.config)


def tail(stage: Stage) -> None:
    async def values(*_: object, **__: object) -> AsyncIterator[bytes]:
        yield orjson.dumps(hostile_verdict())
        yield SENT.encode()
        yield b"[1]"

    stage.patch.setattr("stream_guard.kafka.topics.tail_verdicts", values)
    stage.tries("tail")
    stage.tries("tail", "--json")


def produce(stage: Stage) -> None:
    stage.returns("stream_guard.kafka.topics.existing_topics", frozenset[str]())
    stage.tries("produce", stage.posts, NAME)
    stage.tries("produce", stage.posts, "t", "--key", NAME)
    stage.tries("produce", stage.path / f"none{NAME}", "t")


def round_trip(stage: Stage) -> None:
    stage.returns("stream_guard.kafka.round_trip.round_trip", orjson.dumps(hostile_verdict()))
    stage.tries("round-trip", "t")


def round_trip_without_verdict(stage: Stage) -> None:
    stage.returns("stream_guard.kafka.round_trip.round_trip", LimitError(SENT))
    stage.tries("round-trip", NAME)


def replay(stage: Stage) -> None:
    one = Replayed(hostile_verdict(), "unproven", reason=SENT)
    for found in ([one], [one, one]):
        stage.returns("stream_guard.offline.audit.replay_run.replay", found)
        stage.tries("replay", "--from", "0")
    stage.tries("replay", "--from", "0", "--json")
    stage.tries("replay", NAME)
    stage.tries("replay", "--from", NAME)


def backtest(stage: Stage) -> None:
    class Report:
        def describe(self) -> dict[str, Any]:
            flip: dict[str, Any] = dict.fromkeys(
                ("old_decision", "old_category", "new_decision", "new_category"), SENT
            )
            counted = ("judged", "compared", "of_an_earlier_run", "left_by_limit", "same")
            flip |= {"old_labels": [SENT], "new_labels": [SENT]}
            others = ("without_old_verdict", "other_decision", "other_category", "other_labels")
            return {
                **dict.fromkeys((*counted, *others), 1),
                "topic": SENT,
                "policy": {"id": SENT, "version": SENT},
                "against": SENT,
                "unreadable": {SENT: 1},
                "flips": [{**flip, "count": 1}],
                "examples": [{"record": SENT, "old": SENT, "new": SENT}],
            }

    stage.returns("stream_guard.offline.audit.backtest_run.backtest", Report())
    line = ("backtest", "--policy", stage.folder / "spam", "--topic", "t")
    stage.tries(*line)
    stage.tries(*line, "--json")
    stage.tries("backtest", "--policy", stage.bad_folder / NAME, "--topic", NAME)


def route(stage: Stage) -> None:
    line = ("route", stage.posts, "--topic", SENT, "--path", stage.folder)
    stage.tries(*line, "--header", f"{NAME}={NAME}")
    stage.tries(*line, "--header", NAME)


def policies_new(stage: Stage) -> None:
    stage.tries("policies", "new", NAME, "--path", stage.folder)
    stage.tries("policies", "new", "other", "--topic", NAME, "--path", stage.folder)
    stage.tries("policies", "new", "other", "--path", stage.bad_folder)


def policies_lint(stage: Stage) -> None:
    for folder in (stage.folder, stage.bad_folder):
        for form in ("text", "json", "sarif"):
            stage.tries("policies", "lint", "--path", folder, "--format", form)
    stage.tries("policies", "lint", "--format", NAME)


def policies_list(stage: Stage) -> None:
    stage.tries("policies", "list", "--path", stage.folder)
    stage.tries("policies", "list", "--path", stage.folder, "--json")
    stage.tries("policies", "list", "--path", stage.bad_folder)


def policies_show(stage: Stage) -> None:
    stage.tries("policies", "show", "spam", "--path", stage.folder)
    stage.tries("policies", "show", "spam", "--path", stage.folder, "--json")
    stage.tries("policies", "show", NAME, "--path", stage.folder)


def policies_diff(stage: Stage) -> None:
    empty = stage.path / "before"
    (empty / "other").mkdir(parents=True)
    (empty / "other" / "policy.md").write_text("Be kind.")
    stage.tries("policies", "diff", empty, stage.folder)
    stage.tries("policies", "diff", empty, stage.folder, "--json")
    stage.tries("policies", "diff", empty, stage.bad_folder)


def policies_attack(stage: Stage) -> None:
    line = ("policies", "attack", "spam", "--path", stage.folder)
    stage.tries(*line, "--posts", stage.csv)
    stage.tries(*line, "--posts", stage.csv, "--json")
    stage.tries(*line, "--posts", stage.posts)


def policies_score(stage: Stage) -> None:
    stage.tries("policies", "score", "builtin:toxicity", stage.posts)
    stage.tries("policies", "score", NAME)


def policies_calibrate(stage: Stage) -> None:
    line = ("policies", "calibrate", "spam", stage.verdicts)
    stage.tries(*line, "--path", stage.folder)
    stage.tries(*line, stage.csv, "--path", stage.folder)


def policies_improve(stage: Stage) -> None:
    content = {"id": SENT, "sha256": "0" * 64, "language": SENT}
    said, decided = Outcome("violates", SENT), Outcome("safe", None)
    ruling = Ruling(Place(SENT, 0, 1), content, SENT, said, (SENT,), decided, SENT, SENT)
    for name in ("rulings_of_topics", "with_texts"):
        stage.returns(f"stream_guard.offline.improve.rulings.{name}", [ruling])
    stage.patch.setenv("STREAM_GUARD_POLICIES__ARCHIVE", "folder")
    stage.patch.setenv("STREAM_GUARD_POLICIES__ARCHIVE_PATH", str(stage.path / f"archive {NAME}"))
    golden = f'text,label\n"[violates] {NAME}",violates\n'
    (stage.folder / "spam" / "golden.csv").write_text(golden, newline="")
    draft, _ = make_draft(stage.folder, load_policies(stage.folder).policies["spam"])
    (draft / "policy.yaml").write_text("gates: {min_f1: 0.5}\n")
    at = ("spam", "--path", stage.folder)
    out = ("--out", stage.path / f"out {NAME}")
    stage.tries("policies", "improve", *at, "--dry-run", "--json")
    stage.tries("policies", "improve", *at)
    stage.tries("policies", "improve", NAME)
    stage.tries("policies", "draft", *at)
    stage.tries("policies", "gates", *at, *out)
    stage.tries("policies", "gates", *at, *out, "--since", NAME)
    stage.tries("policies", "promote", *at, *out, "--reason", SENT, "--by", SENT)
    stage.tries("policies", "rollback", *at, "--reason", SENT, "--by", SENT, "--to", NAME)
    stage.tries("policies", "rollback", *at, "--reason", SENT, "--by", SENT)
    stage.tries("policies", "history", "spam")
    stage.tries("policies", "history", "spam", "--json")
    stage.tries("policies", "history", NAME)


def dlq_list(stage: Stage) -> None:
    stage.patch.setattr("stream_guard.kafka.dead_letter_reader.DeadLetterReader", Reader)
    stage.tries("dlq", "list")
    stage.tries("dlq", "list", "--json")
    stage.tries("dlq", "list", "--since", NAME)
    stage.tries("dlq", "list", "--reason", NAME)


def dlq_show(stage: Stage) -> None:
    stage.patch.setattr("stream_guard.kafka.dead_letter_reader.DeadLetterReader", Reader)
    (letter_id,) = (value for name, value in hostile_letter().headers if name == "sg_id")
    assert letter_id is not None
    letter = read_dead_letter(hostile_letter())
    assert letter is not None
    stage.tries("dlq", "show", letter.id, "--content")
    stage.tries("dlq", "show", letter.id, "--content", "--json")
    stage.tries("dlq", "show", NAME)


def dlq_replay(stage: Stage) -> None:
    seen = Survey(
        reasons=Counter({SENT: 2}), source_topics={SENT}, sent=1, not_input=Counter({SENT: 1})
    )
    stage.returns("stream_guard.kafka.dead_letter_replay.replay", seen)
    stage.tries("dlq", "replay")
    stage.tries("dlq", "replay", "--json")
    stage.tries("dlq", "replay", "--offsets", NAME)


def export_dsa(stage: Stage) -> None:
    mapping = Path(__file__).parents[3] / "examples" / "dsa-mapping.yaml"
    stage.tries("export", "dsa", "--mapping", mapping, "--input", stage.verdicts)
    stage.tries("export", "dsa", "--mapping", mapping, "--input", stage.posts)
    stage.tries("export", "dsa", "--mapping", stage.config, "--input", stage.verdicts)
    stage.tries("export", "dsa", "--mapping", mapping, "-i", stage.verdicts, "-o", stage.csv)


def decide(stage: Stage) -> None:
    stage.returns("stream_guard.offline.decide.decide", make_decision(reason=SENT))
    stage.tries("decide", "v", "safe", "--by", "r-1")
    stage.tries("decide", "v", "safe", "--by", "r-1", "--json")
    stage.tries("decide", "v", "safe", "--by", "r-1", "--from", NAME)
    stage.tries("decide", "v", "safe", "--by", "r-1", "--kind", "expiry")


def review_desk(stage: Stage) -> str:
    """Fill a database with an item full of steering text, and set it; return the item's id."""
    topics, store = Topics(), Store(str(stage.path / "review.sqlite"))
    verdict = hostile_verdict()
    item = build_review_item(verdict, ["sample"], sample_share=1.0, reviews=2, text=SENT)
    topics.write("review", orjson.dumps(item), b"k")
    apply(Projection(store, KAFKA), topics.records)
    store.close()
    stage.patch.setenv("STREAM_GUARD_REVIEW__DATABASE", str(stage.path / "review.sqlite"))
    stage.patch.setenv("STREAM_GUARD_KAFKA__REVIEW_TOPIC", "review")
    stage.returns("stream_guard.offline.review.follow.catch_up", 0)
    stage.returns("stream_guard.kafka.decision_writer.write_decision", None)
    name: str = item["id"]
    return name


def review_read(stage: Stage) -> None:
    name = review_desk(stage)
    stage.tries("review", "list", "--offline")
    stage.tries("review", "list", "--offline", "--json")
    stage.tries("review", "list", "--offline", "--policy", NAME)
    stage.tries("review", "show", name, "--by", NAME, "--offline")
    stage.tries("review", "show", name, "--by", "r-1", "--offline", "--json")
    stage.tries("review", "show", NAME, "--by", "r-1", "--offline")
    stage.tries("review", "stats", "--offline")
    stage.tries("review", "stats", "--offline", "--json")


def review_write(stage: Stage) -> None:
    name = review_desk(stage)
    stage.tries("review", "decide", name, "safe", "--by", "r-1", "--reason", SENT[:60])
    stage.tries("review", "decide", name, "safe", "--by", "r-2", "--json")
    stage.tries("review", "decide", NAME, "safe", "--by", NAME)
    stage.tries("review", "export", "--policy", NAME, "-o", stage.path / f"{NAME}.jsonl")
    stage.tries("review", "export", "--policy", NAME, "-o", stage.path / NAME)
    stage.tries("review", "serve")
    stage.tries("review", "rebuild")


STAGES: Final[tuple[Callable[[Stage], None], ...]] = (
    *(classify, studio, evaluate, run, check, doctor, show_config, tail, produce, round_trip),
    *(round_trip_without_verdict, replay, backtest, route),
    *(policies_new, policies_lint, policies_list, policies_show, policies_diff, policies_attack),
    *(policies_score, policies_calibrate, dlq_list, dlq_show, dlq_replay, export_dsa),
    *(policies_improve, decide, review_read, review_write, console, backfill),
)


def assert_harmless(printed: str) -> None:
    for line in printed.split("\n"):
        assert not line.startswith("FORGED"), f"a forged line: {line!r}"
        raw = {one for one in line if unicodedata.category(one) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
        assert not raw, f"raw in {line!r}: {sorted(map(ascii, raw))}"


def lines_of(
    make: Callable[[Stage], None], path: Path, patch: pytest.MonkeyPatch
) -> list[list[str]]:
    stage = Stage(path, patch)
    make(stage)
    return stage.lines


@pytest.mark.parametrize("make", STAGES, ids=lambda make: make.__name__)
def test_what_came_from_outside_is_made_visible(
    make: Callable[[Stage], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, value in SCRIPTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STREAM_GUARD_POLICIES__PATH", str(Path(__file__).parents[3] / "policies"))
    for line in lines_of(make, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["stream-guard", *line])
        with pytest.raises(SystemExit):
            main()
        out, err = capfd.readouterr()
        assert out + err, line
        assert_harmless(out)
        assert_harmless(err)
        assert "Traceback" not in err
        if "--json" in line and out and not out.startswith("line "):
            for part in [out] if out.startswith(("{\n", "[\n")) else out.splitlines():
                orjson.loads(part)


def test_every_command_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = set()
    for number, make in enumerate(STAGES):
        (tmp_path / str(number)).mkdir()
        for line in lines_of(make, tmp_path / str(number), monkeypatch):
            tried.add(tuple(line[: 2 if line[0] in {"policies", "dlq", "export", "review"} else 1]))
    assert tried == set(leaves(typer.main.get_command(app)))


def test_only_one_module_of_the_command_line_prints() -> None:
    folder = Path(stream_guard.cli.__file__).parent
    found = []
    for file in sorted(folder.rglob("*.py")):
        if file.name == "terminal.py":
            continue
        for node in ast.walk(syntax_tree(file.read_text())):
            written = ast.unparse(node) if isinstance(node, (ast.Attribute, ast.Name)) else ""
            if written in {
                "sys.stdout",
                "sys.stderr",
                "print",
                "typer.echo",
                "typer.secho",
                "Console",
            }:
                found.append(f"{file.name}: {written}")
    assert found == []


def test_the_live_view_shows_no_steering_text() -> None:
    view = LiveView(0.0)
    view.add(hostile_verdict(), 1.0)
    view.show_metrics_error(SENT)
    console = Console(width=400, force_terminal=False)
    with console.capture() as captured:
        console.print(view.render(2.0))
    assert_harmless(captured.get())


def test_styles_survive_what_is_written_out() -> None:
    line = visible(styled(("\x1b[1m", "red"), ("b", "green")))
    assert line.plain == "\\x1b[1mb"
    assert [(span.start, span.end, span.style) for span in line.spans] == [
        (0, 7, "red"),
        (7, 8, "green"),
    ]


def test_markup_is_not_read(capsys: pytest.CaptureFixture[str]) -> None:
    say("[/bad] [bold]x[/] :smile:")
    assert capsys.readouterr().out == "[/bad] [bold]x[/] :smile:\n"


def test_json_stays_json_and_holds_no_steering_text(capsys: pytest.CaptureFixture[str]) -> None:
    write_json_line({SENT: SENT})
    out = capsys.readouterr().out
    assert_harmless(out)
    assert orjson.loads(out) == {SENT: SENT}
