"""No module is over 400 lines, and no function over 60 unless the line above it says why."""

from __future__ import annotations

import ast
from pathlib import Path

from tools.syntax_tree import syntax_tree

HOUSE = Path(__file__).parents[3] / "stream_guard"
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
REASON = "# Over 60 lines: "


def long_modules(folder: Path) -> list[str]:
    """Return the modules that are too long, with their length in lines."""
    sizes = {path: len(path.read_text("utf-8").splitlines()) for path in folder.rglob("*.py")}
    return [
        f"{path.relative_to(folder)}: {lines} lines"
        for path, lines in sorted(sizes.items())
        if lines > MODULE_LINES_MAX
    ]


def long_functions(folder: Path) -> list[str]:
    """Return the functions that are too long without a reason, with their length in lines."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text("utf-8")
        lines = text.splitlines()
        for node in ast.walk(syntax_tree(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            assert node.end_lineno is not None
            size = node.end_lineno - node.lineno + 1
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            if size > FUNCTION_LINES_MAX and not lines[first - 2].strip().startswith(REASON):
                found.append(f"{path.relative_to(folder)}: {node.name}: {size} lines")
    return found


def test_no_module_is_too_long() -> None:
    assert long_modules(HOUSE) == []


def test_no_function_is_too_long_without_a_reason() -> None:
    assert long_functions(HOUSE) == []


def test_the_check_sees_what_is_too_long(tmp_path: Path) -> None:
    body = "    pass\n" * FUNCTION_LINES_MAX
    (tmp_path / "short.py").write_text("def one():\n" + "    pass\n" * (FUNCTION_LINES_MAX - 1))
    (tmp_path / "long.py").write_text(f"def one():\n{body}")
    (tmp_path / "why.py").write_text(f"{REASON}one literal.\n@decorated\ndef one():\n{body}")
    (tmp_path / "module.py").write_text("x = 1\n" * (MODULE_LINES_MAX + 1))
    assert long_functions(tmp_path) == ["long.py: one: 61 lines"]
    assert long_modules(tmp_path) == ["module.py: 401 lines"]
