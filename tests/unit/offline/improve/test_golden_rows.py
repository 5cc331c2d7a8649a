"""Rows go behind those of a golden set: no text twice, no label changed, the file's own form kept."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import orjson
import pytest

from stream_guard.core.errors import SettingsError
from stream_guard.offline.audit.backtest import Outcome
from stream_guard.offline.evaluation.golden import Columns, read_golden
from stream_guard.offline.improve.golden_rows import Rows, add_rows, plan_rows
from stream_guard.offline.improve.groups import group_overturned
from stream_guard.offline.improve.rulings import Place, Ruling
from stream_guard.policies.policy import make_policy

if TYPE_CHECKING:
    from pathlib import Path

POLICY = make_policy(
    "spam",
    b"# Spam\n\n## Safe (S0 - clean)\n\n## Banned (S1 - adverts)\n\n## Banned (S2 - scams)\n",
)
VIOLATES, SAFE = Outcome("violates", "S1"), Outcome("safe", None)


def ruling(
    number: int,
    text: str | None,
    person: Outcome = SAFE,
    machine: Outcome = VIOLATES,
    language: str | None = None,
) -> Ruling:
    sha256 = hashlib.sha256((text or "").encode()).hexdigest()
    content = {"id": f"p{number}", "sha256": sha256, "language": language}
    return Ruling(Place("posts", 0, number), content, "1", machine, ("S1.a",), person, text=text)


def planned(file: Path, *rulings: Ruling) -> Rows:
    return plan_rows(file, POLICY, rulings, text_bytes_max=1_000)


def read(file: Path) -> list[tuple[str, str]]:
    rows = read_golden(file, POLICY, Columns(), labels={}, text_bytes_max=1_000)
    return [(row.post.text, row.label) for row in rows]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("golden.csv", 'id,text,label\n1,"a, b",S1'),
        ("golden.csv", "A notice\r\nlabel;note;content\r\nS1;x;a, b\r\n"),
        ("golden.csv", "\ufefftext,label\na, b\n".replace("a, b", '"a, b",S1')),
        ("golden.tsv", "label\ttext\nS1\ta, b\n"),
        ("golden.jsonl", '{"post": "a, b", "gold": "S1", "more": 1}\n'),
    ],
)
def test_new_rows_follow_in_the_files_own_form(tmp_path: Path, name: str, content: str) -> None:
    (file := tmp_path / name).write_bytes(content.encode())
    text = 'two\nlines, "quoted"; and\ta tab'
    rows = planned(
        file, ruling(1, text), ruling(2, text), ruling(3, "ad", Outcome("violates", "S2"))
    )
    add_rows(file, rows.new)
    assert file.read_bytes().startswith(content.encode())
    assert read(file) == [("a, b", "S1"), (text, "safe"), ("ad", "S2")]
    assert (len(rows.new), rows.known) == (2, 1)
    again = planned(file, ruling(1, text), ruling(9, "ad", Outcome("violates", "S2")))
    assert (again.new, again.known, again.conflicts) == ((), 2, ())
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_golden_set_is_made_with_languages(tmp_path: Path) -> None:
    file = tmp_path / "golden.csv"
    rows = planned(file, ruling(1, "eins", language="de"), ruling(2, None), ruling(3, " "))
    add_rows(file, rows.new)
    assert rows.without_text == 2
    row = read_golden(file, POLICY, Columns(), labels={}, text_bytes_max=9)[0]
    assert (row.post.id, row.post.language) == (f"p1:{row.post.sha256[:12]}", "de")


def test_a_text_with_another_label_is_named_and_stays(tmp_path: Path) -> None:
    (file := tmp_path / "golden.jsonl").write_bytes(
        b'{"text": "a", "label": "S1"}\n{"text": "b", "label": "violates"}\n'
    )
    rows = planned(
        file,
        ruling(1, "a"),
        ruling(2, "b", Outcome("violates", "S2")),
        ruling(3, "a", Outcome("violates", "S2")),
    )
    assert rows.new == ()
    assert rows.known == 1  # a category where the golden set names none
    assert [(each.line, each.label, each.row.label) for each in rows.conflicts] == [
        (1, "S1", "safe"),
        (1, "S1", "S2"),
    ]


@pytest.mark.parametrize("code", ["S0", "S9"])
def test_a_category_that_does_not_violate_or_is_gone_leaves_the_decision(
    tmp_path: Path, code: str
) -> None:
    rows = planned(tmp_path / "golden.csv", ruling(1, "a", Outcome("violates", code)))
    assert rows.new[0].label == "violates"


def test_an_id_of_another_text_gets_an_end(tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    taken = ruling(1, "new").name
    file.write_bytes(orjson.dumps({"id": taken, "text": "old", "label": "S1"}) + b"\n")
    add_rows(file, planned(file, ruling(1, "new")).new)
    assert len(read(file)) == 2


def test_a_golden_set_behind_a_link_is_written_where_it_is(tmp_path: Path) -> None:
    (target := tmp_path / "real.csv").write_text("text,label\na,S1\n")
    (link := tmp_path / "golden.csv").symlink_to(target)
    add_rows(link, planned(link, ruling(1, "new")).new)
    assert link.is_symlink()
    assert len(read(target)) == 2


def test_rows_are_not_added_to_parquet(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="convert the golden set"):
        planned(tmp_path / "golden.parquet", ruling(1, "a"))


def test_verdicts_that_are_wrong_in_the_same_way_are_one_group() -> None:
    scam = Outcome("violates", "S2")
    groups = group_overturned(
        [
            ruling(1, "a quotation"),
            ruling(2, "b", scam),
            ruling(3, "c"),
            ruling(4, "d", VIOLATES),  # as the verdict said
            ruling(5, "e", Outcome("violates", None)),  # the same decision, no category named
            ruling(6, "f", SAFE, Outcome("undetermined", None)),
        ]
    )
    assert [(str(g.machine), str(g.person), len(g.rulings)) for g in groups] == [
        ("violates S1", "safe", 2),
        ("undetermined", "safe", 1),
        ("violates S1", "violates S2", 1),
    ]
    assert groups[0].describe()["count"] == 2
    assert "a quotation" not in str(groups[0].describe())
