"""Writes docs/reference from the code: settings, metrics, commands, exit codes, licences. Run by ``make reference``.

Nobody edits these pages by hand: a test makes them again and compares.
"""

from __future__ import annotations

import html
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from stream_guard.core import errors
from stream_guard.core.exit_codes import ExitCode
from stream_guard.settings import Settings, env_name
from stream_guard.telemetry.bulk_histogram import BulkHistogram
from stream_guard.telemetry.metrics import Metrics
from stream_guard.telemetry.top_gauge import TopGauge

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
_MADE = "<!-- Made by `make reference`; edit the code instead. -->\n\n"


Json = dict[str, Any]
_Error = TypeVar("_Error", bound=errors.StreamGuardError)
_VALUES = {"str": "TEXT", "path": "FILE", "int": "N", "float": "N"}


def settings() -> str:
    """Return every setting, by section."""
    schema = Settings.model_json_schema()
    lines = [
        "# Settings",
        "",
        "Each setting comes from the first of these places that has it:",
        "",
        "1. its environment variable; lists and tables are JSON there;",
        "2. the TOML file that `--config FILE` names;",
        "3. its default.",
        "",
        "An unknown name is an error. `stream-guard config` shows the effective settings, and",
        "`stream-guard config --schema` shows their JSON Schema.",
    ]
    for section, reference in schema["properties"].items():
        model = schema["$defs"][
            (reference.get("$ref") or reference["allOf"][0]["$ref"]).split("/")[-1]
        ]
        lines += ["", f"## {section}", "", _flat(model.get("description", ""))]
        lines += _table(model, schema["$defs"], (section,))
    return "\n".join(lines) + "\n"


def _table(model: Json, definitions: Json, path: tuple[str, ...]) -> list[str]:
    lines = ["", "| setting | default | |", "|---|---|---|"]
    deeper = []
    for name, field in model["properties"].items():
        inner = _definition(field, definitions)
        if inner is not None:
            deeper.append(((*path, name), inner))
            continue
        default = _without_nulls(field.get("default"))
        shown = "" if default is None else f"`{orjson.dumps(default).decode()}`".replace("|", "\\|")
        dotted = ".".join((*path, name))
        variable = env_name(*path, name)
        text = _flat(field.get("description", "")).replace("|", "\\|")
        lines.append(f"| `{dotted}`<br>`{variable}` | {shown} | {text}{_bounds(field)} |")
    for inner_path, inner in deeper:
        lines += ["", f"### {'.'.join(inner_path)}", "", _flat(inner.get("description", ""))]
        lines += _table(inner, definitions, inner_path)
    return lines


def _without_nulls(value: Any) -> Any:
    """Return a default without the keys that are null, which say nothing."""
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def _definition(field: Json, definitions: Json) -> Json | None:
    """Return the table that a field holds, if it holds one of a fixed shape."""
    for candidate in (field, *field.get("allOf", ())):
        name = candidate.get("$ref", "").split("/")[-1]
        if definitions.get(name, {}).get("properties"):
            found: Json = definitions[name]
            return found
    return None


def _bounds(field: Json) -> str:
    options = [field, *field.get("anyOf", ())]
    words = []
    for option in options:
        if "enum" in option:
            words.append("one of " + ", ".join(f"`{value}`" for value in option["enum"]))
        for key, word in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "over"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "under"),
        ):
            if key in option:
                words.append(f"{word} {option[key]:,}")
    return f" ({'; '.join(words)})" if words else ""


def _flat(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def metrics() -> str:
    """Return every metric with its type, labels and meaning."""
    made = Metrics(CollectorRegistry())
    labels = {
        metric._name: metric._labelnames  # noqa: SLF001 - there is no public way to ask
        for metric in vars(made).values()
        if isinstance(metric, MetricWrapperBase)
    }
    labels |= {
        metric._name: metric.label_names  # noqa: SLF001 - there is no public way to ask
        for metric in vars(made).values()
        if isinstance(metric, BulkHistogram | TopGauge)
    }
    lines = [
        "# Metrics",
        "",
        "At `/metrics`, in one registry with vLLM's own (`vllm:*`). Counters end in `_total`.",
        "",
        "| metric | type | labels | |",
        "|---|---|---|---|",
    ]
    for family in sorted(made.registry.collect(), key=lambda family: family.name):
        name = family.name + ("_total" if family.type == "counter" else "")
        shown = ", ".join(f"`{label}`" for label in labels.get(family.name, ()))
        lines.append(f"| `{name}` | {family.type} | {shown} | {family.documentation} |")
    return "\n".join(lines) + "\n"


def exit_codes() -> str:
    """Return the exit codes, the errors that lead to each, and the reasons of dead letters."""
    lines = ["# Exit codes", "", "| code | meaning | errors |", "|---|---|---|"]
    for code in ExitCode:
        named = ", ".join(
            f"`{error.__name__}`"
            for error in _tree(errors.StreamGuardError)
            if error.exit_code == code
        )
        lines.append(f"| {code} | {code.meaning} | {named} |")
    lines += ["", "## Reasons of dead letters", "", "| `sg_reason` | meaning |", "|---|---|"]
    known = errors.dead_letter_reasons()
    reasons = {
        error.reason: _summary(error)
        for error in _tree(errors.RecordError)
        if error.reason in known
    }
    lines += [f"| `{reason}` | {text} |" for reason, text in sorted(reasons.items())]
    return "\n".join(lines) + "\n"


def _tree(root: type[_Error]) -> list[type[_Error]]:
    """Return the errors of the tree in order, except those of records, which end as dead letters."""
    found = [root]
    for error in root.__subclasses__():
        if error.__module__ == errors.__name__ and error is not errors.RecordError:
            found += _tree(error)
    return found


def _summary(error: type) -> str:
    """Return the first paragraph of a docstring."""
    return _flat((error.__doc__ or "").split("\n\n", 1)[0])


def commands() -> str:
    """Return every command's help."""
    command = [sys.executable, "-m", "typer", "stream_guard.cli.main", "utils", "docs"]
    done = subprocess.run(
        [*command, "--name", "stream-guard", "--title", "Commands"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    text = html.unescape(done.stdout.rstrip()) + "\n"
    text = re.sub(r"^(\* `-[^`]*) <(\w+)(?: range)?>`", _option, text, flags=re.MULTILINE)
    text = re.sub(r"^(\* `[^`<]+) <\w+>`", r"\1`", text, flags=re.MULTILINE)
    text = re.sub(r"\[(\[[\w-]+\]\.\.\.)\]\.\.\.", r"\1", text)
    text = re.sub(r"(\[[^\]]*?)x>=(\d+)\]", r"\1at least \2]", text)
    text = re.sub(r"(\d+)<=x<=(\d+)\]", r"\1 to \2]", text)
    return re.sub(r"^(\* `([\w-]+)`: ).*\.\.\.$", _whole_summary(text), text, flags=re.MULTILINE)


def _option(found: re.Match[str]) -> str:
    """Return an option with a word for its value in place of a type of Python."""
    return f"{found[1]} {_VALUES[found[2]]}`"


def _whole_summary(text: str) -> Callable[[re.Match[str]], str]:
    """Return a function that puts the first paragraph of a command's section in place of a summary that typer cut."""
    sections = list(
        re.finditer(r"^#+ `stream-guard ([\w -]+)`\n\n(.+?)\n\n", text, re.MULTILINE | re.DOTALL)
    )

    def replace(found: re.Match[str]) -> str:
        # The list comes before the sections of its commands, so the next section with this name is the right one.
        section = next(
            s for s in sections if s.start() > found.start() and s[1].split()[-1] == found[2]
        )
        return found[1] + _flat(section[2])

    return replace


def licences() -> str:
    """Return the licence of everything that the CPU image installs, as its own metadata says."""
    lock = (ROOT / "requirements" / "cpu-image.txt").read_text("utf-8")
    lines = [
        "# Licences",
        "",
        "Stream Guard has the Apache License 2.0. These are its dependencies, with the licences in their own metadata:",
        "",
        "| package | licence |",
        "|---|---|",
    ]
    # Lines with a marker are for other platforms, or left out on purpose.
    for name in ["torch", *re.findall(r"^([\w.-]+)==[^ ;]+ \\$", lock, re.MULTILINE)]:
        about: Any = distribution(name).metadata  # a Message, whose declared type has no `get`
        text = about.get("License-Expression") or _licence_of(about)
        lines.append(f"| {name} | {text} |")
    return "\n".join(lines) + "\n"


def _licence_of(about: Any) -> str:
    """Return the licence from classifiers, or the first line of the free text."""
    prefix = "License :: "
    found = [c.split(" :: ")[-1] for c in about.get_all("Classifier", ()) if c.startswith(prefix)]
    if found:
        return ", ".join(found)
    return next(iter((about.get("License") or "").strip().splitlines()), "") or "see the package"


PAGES = {
    "settings.md": settings,
    "metrics.md": metrics,
    "exit-codes.md": exit_codes,
    "commands.md": commands,
    "licences.md": licences,
}


def main() -> None:
    """Write the pages."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (REFERENCE / name).write_text(_MADE + make(), "utf-8")
        print(REFERENCE.relative_to(ROOT) / name)


if __name__ == "__main__":
    main()
