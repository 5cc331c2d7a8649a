"""The code of docs/guides/testing.md runs as it stands; what needs a broker is run by the integration tests."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout

import pytest

import stream_guard.testing
from stream_guard.testing.__main__ import main
from tests.commands.lines import ROOT, Block, blocks

PAGE = "docs/guides/testing.md"
TEXT = (ROOT / PAGE).read_text("utf-8")
PYTHON = [block for block in blocks(PAGE, TEXT) if block.language == "python"]


def source_of(block: Block) -> str:
    """Return a block's code, its lines numbered as on the page."""
    return "\n" * (block.number - 1) + "\n".join(line for _, line in block.lines)


IN_MEMORY = [block for block in PYTHON if "start_broker" not in source_of(block)]


@pytest.mark.parametrize("block", IN_MEMORY, ids=lambda block: f"line {block.number}")
def test_each_block_in_memory_runs(block: Block) -> None:
    exec(compile(source_of(block), PAGE, "exec"), {"__name__": "page"})  # noqa: S102 - our own page


def test_the_page_names_each_part() -> None:
    assert len(IN_MEMORY) == 2
    parts = set(stream_guard.testing.__all__) - {"Broker", "MemoryRecord"}
    assert [name for name in sorted(parts) if f"`{name}" not in TEXT] == []


def run(*arguments: str) -> tuple[object, str, str]:
    """Return the exit code, the output and the errors of a command line that starts no broker."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as errors:
        try:
            code: object = main(arguments)
        except SystemExit as end:
            code = end.code
    return code, out.getvalue(), errors.getvalue()


def test_the_help_names_each_option_and_variable() -> None:
    code, out, _ = run("--help")
    assert code == 0
    for name in ("--brokers", "--topic", "--partitions", "KAFKA_BOOTSTRAP_SERVERS", "BROKER"):
        assert name in out


@pytest.mark.parametrize(
    "arguments", [("--brokers", "4"), ("--partitions", "0"), ("--partitions", "x"), ("posts",)]
)
def test_wrong_usage_starts_nothing(arguments: tuple[str, ...]) -> None:
    code, out, errors = run(*arguments)
    assert (code, out) == (2, "")
    assert arguments[-1] in errors


def test_a_broker_that_cannot_start_is_an_error_of_the_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setenv("BROKER", "pigeon")
    code, out, errors = run()
    assert (code, out) == (3, "")
    assert errors == "BROKER=pigeon is no kind of broker; use docker or embedded\n"
