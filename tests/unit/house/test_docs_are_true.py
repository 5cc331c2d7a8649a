"""What the pages say is so: modules, files, settings, exit codes, commands and the example verdict."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import typer
from markdown_it import MarkdownIt
from pydantic import BaseModel

from stream_guard.cli.main import app
from stream_guard.core.exit_codes import ExitCode
from stream_guard.policies.store import load_policies
from stream_guard.records.verdict_event import verdict_id, verdict_schema
from stream_guard.settings import Settings, env_name, load_settings
from tests.commands.lines import mentions
from tools.syntax_tree import syntax_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "stream_guard"
ROOMS = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").is_file()}
FOLDERS = {
    "benchmarks",
    "deploy",
    "docs",
    "examples",
    "helm",
    "requirements",
    "stream_guard",
    "tests",
    "tools",
}
README = (ROOT / "README.md").read_text("utf-8")
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "helm").rglob("*.md"))
)
CHART = ("helm/stream-guard/README.md", "docs/guides/kubernetes.md")
EVENT_TYPE = re.compile(r"stream_guard\.\w+\.v\d+")
SOURCE = "\n".join(file.read_text("utf-8") for file in sorted(PACKAGE.rglob("*.py")))


def code_in(page: str) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each piece of code in a page's prose."""
    for number, code in mentions(page, (ROOT / page).read_text("utf-8")):
        yield f"{page}:{number}", code


def missing_paths(code: str) -> list[str]:
    """Return the path that a piece of code names and that does not exist."""
    name = code.rstrip("/")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)+", name):
        return []
    first = name.split("/")[0]
    # ``policies`` is a room and a user's folder: only its modules are ours.
    if not name.endswith(".py") and first not in (ROOMS | FOLDERS) - {"policies"}:
        return []
    places = (ROOT / name, PACKAGE / name, PACKAGE / f"{name}.py")
    return [] if any(place.exists() for place in places) else [name]


def missing_modules(code: str) -> list[str]:
    """Return the dotted name that a piece of code names and that does not exist."""
    found = re.match(r"(?:python3? -m )?((?:stream_guard|tests|tools|benchmarks)(?:\.\w+)+)", code)
    if found is None or EVENT_TYPE.fullmatch(found[1]):
        return []
    names = found[1].split(".")
    for count in range(len(names), 0, -1):
        place = ROOT.joinpath(*names[:count])
        module = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if place.is_dir() or module.is_file():
            rest = set(names[count:])
            there = not rest or (module.is_file() and rest <= defined_in(module))
            # Spans have attributes whose names look like modules.
            return [] if there or f'"{found[1]}"' in SOURCE else [found[1]]
    return [found[1]]


def defined_in(module: Path) -> set[str]:
    """Return the names that a module defines or imports."""
    names: set[str] = set()
    for node in ast.walk(syntax_tree(module.read_text("utf-8"))):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def missing_settings(code: str) -> list[str]:
    """Return the settings that a piece of code names and that do not exist."""
    names = [
        tuple(n.lower().split("__")) for n in re.findall(r"STREAM_GUARD_([A-Z_]+__[A-Z_]+)", code)
    ]
    dotted = re.match(r"([a-z_]+(?:\.[a-z_]+)+)(?![\w.*/(…-])", code)
    if (
        dotted
        and dotted[1].split(".")[0] in Settings.model_fields
        and not re.search(r"\.(py|md|yaml|json)\b", code)
    ):
        names.append(tuple(dotted[1].split(".")))
    return [".".join(path) for path in names if not is_setting(path)]


def is_setting(path: tuple[str, ...]) -> bool:
    """Return whether a path names a setting or a table of settings."""
    fields: Any = Settings.model_fields
    for part in path:
        if not isinstance(fields, dict):
            return True  # inside a table of free keys, such as engine.extra
        if part not in fields:
            return False
        kind = fields[part].annotation
        tables = isinstance(kind, type) and issubclass(kind, BaseModel)
        fields = kind.model_fields if tables else None
    return True


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    assert [(place, name) for place, code in code_in(page) for name in missing_paths(code)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_module_that_a_page_names_exists(page: str) -> None:
    assert [(place, name) for place, code in code_in(page) for name in missing_modules(code)] == []


# The chart's values have sections of the same names, and tests of its own.
@pytest.mark.parametrize("page", [page for page in PAGES if page not in CHART])
def test_every_setting_that_a_page_names_exists(page: str) -> None:
    assert [(place, name) for place, code in code_in(page) for name in missing_settings(code)] == []


def docstrings(file: Path) -> Iterator[str]:
    """Yield the docstrings of a module, its classes and its functions."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(syntax_tree(file.read_text("utf-8"))):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield text


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_every_module_and_file_that_a_docstring_names_exists(room: str) -> None:
    named = re.compile(r"(?<![\w./-])(?:(?:docs|tests|tools)/[\w/.-]*\w|stream_guard(?:\.\w+)+)")
    missing = [
        (str(file.relative_to(ROOT)), name)
        for file in sorted((PACKAGE / room).rglob("*.py"))
        for text in docstrings(file)
        for code in named.findall(text)
        for name in (*missing_paths(code), *missing_modules(code))
    ]
    assert missing == []


def test_a_name_that_does_not_exist_is_noticed() -> None:
    assert missing_paths("stream/nothing.py") == ["stream/nothing.py"]
    assert missing_paths("stream/offsets.py") == missing_paths("posts/3/41") == []
    assert missing_modules("stream_guard.stream.nothing") == ["stream_guard.stream.nothing"]
    assert missing_modules("stream_guard.client.VerdictConsumer") == []
    assert (
        missing_settings("kafka.nothing")
        == missing_settings("STREAM_GUARD_KAFKA__NOTHING=1")
        == ["kafka.nothing"]
    )
    assert missing_settings("kafka.topics") == missing_settings("engine.extra") == []


def test_the_architecture_describes_each_room_once() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rooms = page.partition("## The rooms")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|", rooms, re.MULTILINE)
    drawing = (ROOT / "docs" / "images" / "rooms.svg").read_text("utf-8")
    drawn = re.findall(r'class="name"[^>]*>(\w+)<', drawing)
    assert sorted(rows) == sorted(drawn) == sorted(ROOMS)


@pytest.mark.parametrize("picture", ["rooms", "way"])
def test_a_drawing_is_of_our_own_and_fetches_nothing(picture: str) -> None:
    text = (ROOT / "docs" / "images" / f"{picture}.svg").read_text("utf-8")
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"href=\"(?!#)|@import|url\((?!#)", text)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if re.match(r"docs/(guides|explanation|architecture)", page)]
)
def test_a_page_opens_with_what_it_is_for_and_who_reads_it(page: str) -> None:
    opening = (ROOT / page).read_text("utf-8").partition("\n## ")[0]
    assert re.search(r"\bThis (guide|page)\b", opening)
    assert re.search(r"\bfor\b", opening)


def codes_of(text: str) -> dict[int, str]:
    """Return the meanings by exit code of the first table in a text that has them."""
    return {
        int(code): meaning
        for code, meaning in re.findall(r"^\| (\d+) \| (.+?) \|", text, re.MULTILINE)
    }


def test_the_readme_has_every_exit_code_with_its_meaning() -> None:
    section = README.partition("### Exit codes")[2].partition("\n#")[0]
    assert codes_of(section) == {int(code): code.meaning for code in ExitCode}


def test_the_readme_has_every_command() -> None:
    def leaves(command: Any, path: tuple[str, ...]) -> Iterator[str]:  # noqa: ANN401 - typer's own click
        for name, found in command.commands.items():
            if hasattr(found, "commands"):
                yield from leaves(found, (*path, name))
            else:
                yield " ".join((*path, name))

    section = README.partition("## Commands")[2].partition("\n### ")[0]
    shown = re.findall(r"`stream-guard ([a-z -]+?)`", section)
    # ``run`` is what ``eval`` does when it is given no command.
    commands = {name.removesuffix(" run") for name in leaves(typer.main.get_command(app), ())}
    assert sorted(shown) == sorted(commands)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_that_runs_a_model_says_what_to_set_without_a_gpu(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    asks = re.search(
        r"(?m)^(?: {4,}|\$ )?(?:\$ )?stream-guard (?:run|classify|eval|studio|backtest|policies attack)\b",
        text,
    )
    generated = page.startswith("docs/reference/")
    assert generated or asks is None or "STREAM_GUARD_ENGINE__MODEL=demo" in text


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < 150


def test_the_readme_links_every_guide() -> None:
    linked = set(re.findall(r"\]\((docs/guides/[\w-]+\.md)\)", README))
    assert {
        f"docs/guides/{page.name}" for page in (ROOT / "docs" / "guides").glob("*.md")
    } <= linked


def example_verdict() -> dict[str, Any]:
    """Return the verdict that the README shows."""
    (fence,) = (
        t for t in MarkdownIt("commonmark").parse(README) if t.type == "fence" and t.info == "json"
    )
    verdict: dict[str, Any] = json.loads(fence.content)
    return verdict


def test_the_example_verdict_is_one_that_the_schema_takes() -> None:
    verdict = example_verdict()
    jsonschema.Draft202012Validator(verdict_schema()).validate(verdict)
    source, policy = verdict["source"], verdict["policy"]
    place = (source["topic"], source["partition"], source["offset"])
    assert verdict["id"] == verdict_id(*place, policy["id"], policy["sha256"])


def test_the_example_verdict_was_made_under_the_demo_policy() -> None:
    policy = example_verdict()["policy"]
    policies = load_policies(PACKAGE / "cli" / "demo" / "policies").policies
    assert policy["sha256"] == policies[policy["id"]].sha256


def test_settings_come_from_the_environment_then_the_file_then_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "guard.toml"
    file.write_text('[kafka]\ntopics = ["file"]\ngroup_id = "file"\n', "utf-8")
    monkeypatch.setenv(env_name("kafka", "topics"), '["environment"]')
    monkeypatch.delenv(env_name("kafka", "verdict_topic"), raising=False)
    kafka = load_settings(file).kafka
    assert (kafka.topics, kafka.group_id) == (("environment",), "file")
    assert kafka.verdict_topic == "stream-guard.verdicts"


def test_the_precedence_of_settings_is_stated_in_one_place() -> None:
    stating = re.compile(r"environment (?:always )?wins|the first of these places")
    # The page of commands is their help texts.
    others = [page for page in PAGES if page != "docs/reference/commands.md"]
    pages = [page for page in others if stating.search((ROOT / page).read_text("utf-8"))]
    assert pages == ["docs/reference/settings.md"]
