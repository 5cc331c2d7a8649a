"""Golden sets are read as they are found, whole, or refused with file, line and remedy."""

from __future__ import annotations

import builtins
import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream_guard.core.errors import SettingsError
from stream_guard.offline.evaluation.golden import Columns, GoldenRow, read_golden
from stream_guard.policies.store import load_policies
from stream_guard.records.thread import ThreadEntry

ROOT = Path(__file__).parents[3]
SETS = ROOT / "tests" / "data" / "golden"
POLICIES = load_policies(ROOT / "policies").policies
DC = POLICIES["dangerous-content"]


def read(file: Path, columns: Columns | None = None, **labels: str) -> list[GoldenRow]:
    return read_golden(file, DC, columns or Columns(), labels=labels, text_bytes_max=1_000)


@pytest.mark.parametrize("slug", POLICIES)
def test_the_published_sets_are_read_whole_and_as_they_are(slug: str) -> None:
    file = SETS / f"{slug}.csv"
    rows = read_golden(file, POLICIES[slug], Columns(), labels={}, text_bytes_max=65_536)
    with file.open(newline="") as opened:
        expected = list(csv.reader(opened))[2:]
    assert [row.post.text for row in rows] == [record[0] for record in expected]
    assert [row.category for row in rows] == [record[1] for record in expected]
    assert {row.violates for row in rows if row.category and row.category.endswith("0")} == {False}
    assert {row.violates for row in rows if row.category and row.category.endswith("1")} == {True}
    lines = file.read_text().split("\n")
    for row in rows:
        assert lines[row.number - 1].lstrip('"').startswith(row.post.text.split("\n")[0][:20])


def test_other_columns_of_the_published_sets_can_be_judged_by_name() -> None:
    columns = Columns(text="responses", label="Response Label")
    file = SETS / "dangerous-content.csv"
    rows = read_golden(file, DC, columns, labels={}, text_bytes_max=65_536)
    assert len(rows) == 41
    assert rows[0].category == "DC0"
    assert rows[0].post.text.startswith("Viral TikTok challenges often")


ROWS: list[dict[str, Any]] = [
    {"id": "a", "Text": "one", "label": "DC1", "lang": "en"},
    {"id": "b", "Text": "two, with a comma", "label": "safe", "lang": None},
    {"id": "c", "Text": "three\nlines\nlong", "label": "1", "lang": "de"},
]


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with file.open("w", newline="") as opened:
            dialect = "excel-tab" if file.suffix == ".tsv" else "excel"
            writer = csv.DictWriter(opened, list(rows[0]), dialect=dialect)
            writer.writeheader()
            writer.writerows(rows)
    return file


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_says_the_same(tmp_path: Path, suffix: str) -> None:
    rows = read(write(tmp_path / f"set{suffix}", ROWS))
    assert [(r.post.id, r.post.text, r.violates, r.category, r.post.language) for r in rows] == [
        ("a", "one", True, "DC1", "en"),
        ("b", "two, with a comma", False, None, None),
        ("c", "three\nlines\nlong", True, None, "de"),
    ]


@pytest.mark.parametrize("label", [True, 1, 1.0, "TRUE", "Violates", "dc3", " INVALID "])
def test_a_label_may_be_of_any_type_and_in_any_capitals(tmp_path: Path, label: object) -> None:
    for suffix in (".jsonl", ".parquet"):
        file = write(tmp_path / f"set{suffix}", [{"text": "x", "label": label}])
        assert read(file)[0].violates


def test_a_label_can_be_mapped_and_a_column_be_a_pointer(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text('{"body":{"text":"x"},"tags":["bad"]}\n')
    (row,) = read(file, Columns(text="/body/text", label="/tags/0"), bad="DC2")
    assert (row.post.text, row.category, row.label) == ("x", "DC2", "bad")


@pytest.mark.parametrize(
    ("content", "columns", "text"),
    [
        (b"label,\nsafe,x\n", Columns(text="2"), "x"),
        (b"a notice\n,,label\n7,x,safe\n", Columns(text="2", id="1"), "x"),
        (b"text,text,label\nx,y,safe\n", Columns(text="2"), "y"),
        (b"2,other,label\nx,y,safe\n", Columns(text="2"), "x"),  # a name comes first
        (b"\tlabel\nx\tsafe\n", Columns(text="1"), "x"),
    ],
)
def test_a_column_without_a_name_is_named_by_its_position(
    content: bytes, columns: Columns, text: str, tmp_path: Path
) -> None:
    file = tmp_path / ("set.tsv" if b"\t" in content else "set.csv")
    file.write_bytes(content)
    (row,) = read(file, columns)
    assert (row.post.text, row.label) == (text, "safe")
    assert row.post.id == ("7" if columns.id else "2")


@pytest.mark.parametrize("position", ["0", "4", "-1"])
def test_a_position_out_of_the_table_is_told_with_those_that_are_in_it(
    position: str, tmp_path: Path
) -> None:
    file = tmp_path / "set.csv"
    file.write_bytes(b"id,,label\n1,x,\n")
    words = f"no column '{position}'; set --text-column to one of: id, (column 2), label, or to its number (1 to 3)"
    with pytest.raises(SettingsError, match=re.escape(words)):
        read(file, Columns(text=position))


def test_json_lines_have_no_positions(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_bytes(b'{"a":"x","label":"safe"}\n')
    with pytest.raises(
        SettingsError, match=r"no column '1'; set --text-column to one of: a, label$"
    ):
        read(file, Columns(text="1"))


def test_without_ids_the_line_is_the_id_and_a_mark_at_the_start_is_no_name(tmp_path: Path) -> None:
    file = tmp_path / "set.csv"
    file.write_bytes("\ufefftext,label\r\nx,safe\r\n\r\ny,safe\r\n".encode())
    assert [(row.number, row.post.id) for row in read(file)] == [(2, "2"), (4, "4")]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("set.csv", b"", "set.csv: empty; add a header"),
        ("set.csv", b" \n\n", "set.csv: empty; add a header"),
        ("set.csv", b"text,label\n", "set.csv: no rows"),
        (
            "set.csv",
            b"txt,label\nx,safe\n",
            "no column named text, content, post, prompt",
        ),
        ("set.csv", b"a notice\ntxt,label\nx,safe\n", "set --text-column to one of: txt, label"),
        (
            "set.csv",
            b"text,answer\nx,safe\n",
            "set --label-column to one of: text, answer",
        ),
        (
            "set.csv",
            b"text,label\nx,safe\nonly\n",
            "set.csv:3: 1 cell, but the column 'label' is number 2",
        ),
        (
            "set.csv",
            b"text,label\nx,fine\n",
            "set.csv:2: unknown label 'fine' in column 'label'; known: 0",
        ),
        ("set.csv", b"text,label\nx,\n", "set.csv:2: empty label in column 'label'"),
        ("set.csv", b"text,label\n ,safe\n", "set.csv:2: the column 'text' is empty; fill it in"),
        ("set.csv", b"text,label\nx,safe\n\xff,safe\n", "set.csv:3: not UTF-8; save it as UTF-8"),
        (
            "set.csv",
            b"id,text,label\n1,x,safe\n1,y,safe\n",
            "set.csv:3: duplicate id '1', also in line 2",
        ),
        (
            "set.csv",
            b"text,label\n" + b"x" * 1_001 + b",safe\n",
            "set.csv:2: the text has 1001 bytes",
        ),
        (
            "set.csv",
            b"text,label\n" + b"x" * 140_000 + b",safe\n",
            "set.csv:2: not CSV (field larger",
        ),
        ("set.jsonl", b'{"text":"x","label":"safe"}\n{"text":\n', "set.jsonl:2: not JSON"),
        ("set.jsonl", b"[1]\n", "set.jsonl:1: must be a JSON object"),
        ("set.jsonl", b'{"text":4,"label":"safe"}\n', "set.jsonl:1: the column 'text' is not text"),
        ("set.jsonl", b'{"a":1}\n', "set.jsonl: no column named"),
        ("set.parquet", b"PAR1 but no more", "set.parquet: not Parquet (ArrowInvalid)"),
        ("set.xlsx", b"PK", "set.xlsx: must end in .csv, .tsv, .jsonl or .parquet"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place_and_a_remedy(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read(file)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_a_folder_is_told(tmp_path: Path) -> None:
    for name, why in (("none.csv", "No such file"), ("none.parquet", "No such file")):
        with pytest.raises(SettingsError, match=why):
            read(tmp_path / name)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(SettingsError, match="Is a directory; name a readable file"):
        read(tmp_path / "folder.csv")


def test_a_file_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_guard.offline.evaluation.tables.GOLDEN_BYTES_MAX", 10)
    with pytest.raises(SettingsError, match="over 10; split it"):
        read(write(tmp_path / "set.csv", ROWS))


def test_parquet_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "set.parquet", ROWS)
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:  # noqa: ANN401 - stands for import
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet")
    with pytest.raises(SettingsError, match=r"pip install 'stream-guard\[parquet\]'"):
        read(file)


def test_a_set_may_have_the_thread_around_its_posts(tmp_path: Path) -> None:
    rows = [
        {
            "text": "Ask me",
            "label": "DC1",
            "author": 7,
            "parent": "Do you sell it?",
            "thread": {"parent_author": 8, "earlier": ["Hi", {"text": "Hello", "author": "7"}]},
        },
        {"text": "Fine", "label": "safe", "title": "News", "thread": None},
    ]
    file = tmp_path / "set.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    first, second = (row.post for row in read(file))
    assert first.author == "7"
    assert first.context == (
        ThreadEntry("earlier", "Hi"),
        ThreadEntry("earlier", "Hello", "7"),
        ThreadEntry("parent", "Do you sell it?", "8"),
    )
    assert first.text_bytes == len("Ask meHiHelloDo you sell it?")
    assert (second.title, second.context, second.text_bytes) == ("News", (), len("FineNews"))


def test_columns_of_a_table_hold_parent_and_quoted_text(tmp_path: Path) -> None:
    file = tmp_path / "set.csv"
    file.write_text("text,label,parent,parent_author,quoted\nno,safe,yes,9,y\nall,safe,,,\n")
    first, second = (row.post for row in read(file))
    assert first.context == (ThreadEntry("parent", "yes", "9"), ThreadEntry("quoted", "y"))
    assert second.context == ()


def test_a_thread_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text(json.dumps({"text": "a", "label": "safe", "thread": {"earlier": "x"}}))
    with pytest.raises(SettingsError, match=r"set\.jsonl:1: thread\.earlier cannot be used"):
        read(file)
