"""What the package imports and what it declares are the same: nothing missing, nothing unused."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tools.syntax_tree import syntax_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = ("broker", "console", "evaluation", "parquet", "ray", "registry", "review")
"""Extras of the package itself; ``bench`` and ``dev`` are for other folders."""
NOT_IMPORTED = {"psycopg": "SQLAlchemy imports it, for PostgreSQL"}
"""Dependencies that another one needs, with the reason."""
ENGINE = {"vllm": "the extras gpu and cpu, of which one is installed"}
COMES_ALONG = {
    "docker": "testcontainers starts containers with it",
    "huggingface-hub": "tokenizers loads from hubs with it",
    "markupsafe": "jinja2 escapes with it",
    "opentelemetry-api": "the interface of the SDK, which pins it",
    "oss-harmony": "vLLM's own, of vLLM's version",
    "pydantic": "pydantic-settings extends it",
    "pydantic-core": "pydantic's own errors",
    "safetensors": "vLLM's own, of vLLM's version",
    "torch": "vLLM runs the model with it, and pins it",
    "tqdm": "vLLM shows its bars with it",
    "triton": "torch's own, of torch's version",
    "typing-extensions": "pydantic needs it",
}
"""Imports of what a declared dependency always brings, in its own version, with the reason."""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(group: str | None = None) -> set[str]:
    """Return the names of the dependencies, or of an extra's."""
    lines = PROJECT["dependencies"] if group is None else PROJECT["optional-dependencies"][group]
    # An extra may have another extra in it.
    return {_normal(re.match(r"[\w.-]+", line)[0]) for line in lines} - {"stream-guard"}  # type: ignore[index]


def modules(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield every absolute import below a folder, with the file that it is in."""
    for file in folder.rglob("*.py"):
        for node in ast.walk(syntax_tree(file.read_bytes())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                # The last name may be a module, too: ``from opentelemetry import trace``.
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            for name in names:
                yield name, str(file.relative_to(ROOT))


def _distributions(module: str, installed: dict[str, list[str]]) -> set[str]:
    return {_normal(name) for name in installed.get(module.partition(".")[0], ())}


def imported() -> dict[str, str]:
    """Return the distributions that stream_guard imports, each with a file that does."""
    installed = {name: list(found) for name, found in packages_distributions().items()}
    found: dict[str, str] = {}
    for module, file in modules(ROOT / "stream_guard"):
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top == "stream_guard" or top in ENGINE:
            continue
        if top == "opentelemetry":
            found[_opentelemetry(module)] = file
            continue
        if module.startswith("google.protobuf"):  # a namespace that several distributions share
            found["protobuf"] = file
            continue
        owners = _distributions(module, installed)
        assert owners, f"{file} imports {module}, which nothing installed has"
        for owner in owners:
            found[owner] = file
    return found


def _opentelemetry(module: str) -> str:
    # A namespace that several distributions share.
    for part, owner in (
        ("opentelemetry.exporter.otlp.proto.http", "opentelemetry-exporter-otlp-proto-http"),
        ("opentelemetry.exporter.otlp.proto.grpc", "opentelemetry-exporter-otlp-proto-grpc"),
        ("opentelemetry.sdk", "opentelemetry-sdk"),
    ):
        if module.startswith(part):
            return owner
    return "opentelemetry-api"


def test_every_import_has_a_dependency() -> None:
    known = declared().union(*map(declared, EXTRAS), COMES_ALONG)
    missing = {name: file for name, file in imported().items() if name not in known}
    assert not missing


@pytest.mark.parametrize("group", [None, *EXTRAS])
def test_every_dependency_is_imported(group: str | None) -> None:
    unused = declared(group) - set(imported()) - set(NOT_IMPORTED)
    assert not unused


def test_no_reason_is_left_over() -> None:
    used = set(imported())
    assert set(NOT_IMPORTED) <= declared().union(*map(declared, EXTRAS)) - used
    assert set(COMES_ALONG) <= used
