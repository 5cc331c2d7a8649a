"""Files are cut into blocks that can be read alone, and every row of a file is in one of them, with its number."""

from __future__ import annotations

import csv
import datetime as dt
import os
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from stream_guard.core.errors import EncodingError, OperatorError, SettingsError
from stream_guard.core.json_pointer import pointer_to
from stream_guard.offline.backfill.blocks import Block, cut
from stream_guard.offline.backfill.files import FileReader, FileSource, find_files
from stream_guard.offline.backfill.places import place_of
from stream_guard.settings import PostSettings, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from stream_guard.offline.backfill.blocks import Row

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


def source_of(path: Path, **post: str) -> FileSource:
    root, names = find_files(place_of(str(path), "SOURCE"), str(path))
    return FileSource(root, names, PostSettings(**post))  # type: ignore[arg-type]


async def blocks_of(source: FileSource, rows: int) -> list[Block]:
    return list(cut(await source.parts(Settings(), rows), "policies"))


async def rows_of(source: FileSource, rows: int) -> list[Row]:
    """Return all rows, read block by block, the last block first."""
    blocks = await blocks_of(source, rows)
    found = [row for block in reversed(blocks) for row in source.read(block)]
    return sorted(found, key=lambda row: (row.record.topic, row.record.offset))


def values(rows: list[Row]) -> list[Any]:
    return [orjson.loads(row.record.value or b"null") for row in rows]


async def test_json_lines_keep_their_numbers_across_blocks_and_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "posts.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"id":"1"}\r\n\n{"id":"3"}\n{\n{"id":"5"}')
    source = source_of(file)
    rows = await rows_of(source, 2)
    assert [row.record.offset for row in rows] == [1, 3, 4, 5]
    assert rows[2].record.value == b"{"
    assert [block.rows for block in await blocks_of(source, 2)] == [2, 2, 1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(), TEXT, TEXT), min_size=1, max_size=20),
    st.integers(1, 7),
    st.sampled_from(["\n", "\r\n"]),
)
async def test_csv_rows_with_any_cells_are_those_that_were_written(
    tmp_path_factory: pytest.TempPathFactory,
    written: list[tuple[int, str, str]],
    rows: int,
    line_end: str,
) -> None:
    file = tmp_path_factory.mktemp("csv") / "posts.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator=line_end, quoting=csv.QUOTE_ALL)
        writer.writerow(("id", "text", "author"))
        writer.writerows(written)
    found = await rows_of(source_of(file), rows)
    assert all(row.error is None for row in found)
    assert values(found) == [
        {k: v for k, v in zip(("id", "text", "author"), map(str, one), strict=True) if v}
        for one in written
    ]


async def test_csv_rows_that_do_not_fit_are_dead_letters_and_no_other_row_moves(
    tmp_path: Path,
) -> None:
    file = tmp_path / "posts.csv"
    file.write_bytes(b'id,text\na,"two\nlines"\nb\n\nc,caf\xe9\nd,5" disk\n')
    source = source_of(file)
    rows = await rows_of(source, 1)
    assert [row.record.offset for row in rows] == [1, 2, 4, 5]
    assert [None if row.error is None else row.error.reason for row in rows] == [
        *(None, "decode", "encoding", None)
    ]
    assert values(rows)[0] == {"id": "a", "text": "two\nlines"}
    assert values(rows)[3] == {"id": "d", "text": '5" disk'}
    assert sum(block.rows for block in await blocks_of(source, 1)) == 5


async def test_parquet_rows_are_read_from_their_row_groups_alone(tmp_path: Path) -> None:
    moment = dt.datetime(2025, 1, 31, 12, tzinfo=dt.UTC)
    rows = [
        {"id": n, "text": f"post {n}", "created_at": moment, "thread": {"title": "t"}, "none": None}
        for n in range(25)
    ]
    file = tmp_path / "posts.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=4)
    found = await rows_of(source_of(file), 7)
    assert [row.record.offset for row in found] == list(range(1, 26))
    assert values(found)[24]["text"] == "post 24"
    reader = FileReader(source_of(file))
    post = await reader.parse(found[24])
    assert (post.id, post.created_at_ms) == ("24", int(moment.timestamp() * 1_000))
    assert "none" not in values(found)[0]


async def test_a_table_without_ids_gets_each_rows_place_and_other_columns_can_be_named(
    tmp_path: Path,
) -> None:
    file = tmp_path / "posts.csv"
    file.write_text("message,author\nhello,a\n")
    with pytest.raises(SettingsError, match=r"no column 'text'.*--text-column.*message, author"):
        await blocks_of(source_of(file), 10)
    source = source_of(file, text="/message")
    (row,) = await rows_of(source, 10)
    post = await FileReader(source).parse(row)
    assert (post.id, post.text) == ("posts.csv:1", "hello")


async def test_a_folder_means_all_its_files_by_their_names_within_it(tmp_path: Path) -> None:
    (tmp_path / "2025/01").mkdir(parents=True)
    (tmp_path / "2025/01/a.jsonl").write_text('{"id":"a"}\n')
    (tmp_path / "b.ndjson").write_text('{"id":"b"}\n')
    (tmp_path / "_state.jsonl").write_text("ours\n")
    (tmp_path / "notes.txt").write_text("no posts\n")
    rows = await rows_of(source_of(tmp_path), 10)
    assert [row.record.topic for row in rows] == ["2025/01/a.jsonl", "b.ndjson"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("posts.txt", b"x", "the kind of this file is unknown"),
        ("nothing", None, "there is no such file or folder"),
        ("posts.parquet", b"no parquet", "cannot be read"),
        (
            "posts.jsonl.gz",
            b"\x1f\x8b",
            "compressed files are not read: posts.jsonl.gz; decompress",
        ),
        ("posts.csv", b'id,text\na,"never closed' + b"x" * (17 << 20), "a quote is not closed"),
        ("empty.jsonl", b"", "holds no row"),
    ],
)
async def test_what_cannot_be_read_is_named_before_the_start(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(OperatorError, match=message):
        await blocks_of(source_of(tmp_path / name), 10)


async def test_a_file_that_is_written_again_has_other_blocks(tmp_path: Path) -> None:
    file = tmp_path / "posts.jsonl"
    file.write_text('{"id":"a"}\n')
    first = await blocks_of(source_of(file), 10)
    assert first == await blocks_of(source_of(file), 10)
    file.write_text('{"id":"b"}\n')
    os.utime(file, ns=(1, 1))
    assert first[0].digest != (await blocks_of(source_of(file), 10))[0].digest


async def test_a_file_that_is_added_or_written_again_makes_another_source(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id":"a"}\n')
    first = source_of(tmp_path).identity()
    assert source_of(tmp_path).identity() == first
    (tmp_path / "b.jsonl").write_text('{"id":"b"}\n')
    second = source_of(tmp_path).identity()
    assert second != first
    (tmp_path / "b.jsonl").write_text('{"id":"bb"}\n')
    assert source_of(tmp_path).identity() != second


async def test_a_compressed_file_in_a_folder_is_refused_and_others_left_out_are_named(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.jsonl").write_text('{"id":"a"}\n')
    (tmp_path / "notes.txt").write_text("no posts\n")
    (tmp_path / "pictures.zip").write_bytes(b"x")
    with capture_logs() as logs:
        await rows_of(source_of(tmp_path), 10)
    assert [(log["files"], log["first"]) for log in logs] == [(2, ["notes.txt", "pictures.zip"])]
    for name in ("b.jsonl.gz", "c.PARQUET.ZST"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SettingsError, match=r"not read: b\.jsonl\.gz and 1 more"):
        source_of(tmp_path)


async def test_a_parquet_text_that_is_not_utf8_makes_its_row_alone_a_dead_letter(
    tmp_path: Path,
) -> None:
    texts = pa.array([b"one", b"caf\xe9", b"three"], pa.binary()).view(pa.string())
    lists = pa.array([["x"], ["y"], ["z"]])
    pq.write_table(
        pa.table({"id": ["1", "2", "3"], "text": texts, "tags": lists}), tmp_path / "p.parquet"
    )
    rows = await rows_of(source_of(tmp_path / "p.parquet"), 10)
    assert [type(row.error) for row in rows] == [type(None), EncodingError, type(None)]
    assert values(rows) == [
        {"id": "1", "text": "one", "tags": ["x"]},
        {"id": "2", "text": "caf\\xe9", "tags": ["y"]},
        {"id": "3", "text": "three", "tags": ["z"]},
    ]


async def test_a_list_with_a_text_that_is_not_utf8_makes_its_row_a_dead_letter(
    tmp_path: Path,
) -> None:
    inner = pa.array([b"fine", b"\xff"], pa.binary()).view(pa.string())
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), inner)
    pq.write_table(pa.table({"id": ["1", "2"], "text": lists}), tmp_path / "p.parquet")
    rows = await rows_of(source_of(tmp_path / "p.parquet"), 10)
    assert [type(row.error) for row in rows] == [type(None), EncodingError]


async def test_a_column_with_a_slash_in_its_name_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("id,text/plain\n1,hello\n")
    source = source_of(tmp_path / "p.csv", text=pointer_to("text/plain"))
    row = (await rows_of(source, 10))[0]
    assert (await FileReader(source).parse(row)).text == "hello"
    with pytest.raises(SettingsError, match="has no column 'text/html'"):
        await blocks_of(source_of(tmp_path / "p.csv", text=pointer_to("text/html")), 10)


async def test_a_column_that_is_in_the_name_of_a_folder_alone_is_one_of_the_row(
    tmp_path: Path,
) -> None:
    (inner := tmp_path / "language=pt-BR/tenant=a%2Fb/day=__HIVE_DEFAULT_PARTITION__").mkdir(
        parents=True
    )
    pq.write_table(pa.table({"id": ["1"], "text": ["oi"], "tenant": ["own"]}), inner / "p.parquet")
    (inner / "p.csv").write_text("id,text\n2,ola\n")
    source = source_of(tmp_path)
    posts = [await FileReader(source).parse(row) for row in await rows_of(source, 10)]
    found = [(post.id, post.language, post.tenant) for post in posts]
    assert found == [("2", "pt-BR", "a/b"), ("1", "pt-BR", "own")]
