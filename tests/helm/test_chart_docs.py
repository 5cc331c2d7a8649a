"""The chart's README, its schema and its defaults say what is so."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from stream_guard.settings import Settings
from tests.helm.chart import (
    CHART,
    PRESETS,
    ROOT,
    helm,
    lint,
    render,
    render_with,
    template,
    validate,
)
from tools import chart_schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

README = CHART / "README.md"
# Parts of values that are Kubernetes' own and are checked as part of the rendered objects.
OPEN = {
    "affinity.nodeAffinity",
    "affinity.podAffinity",
    "affinity.podAntiAffinity",
    "console.affinity.nodeAffinity",
    "console.affinity.podAffinity",
    "console.affinity.podAntiAffinity",
    "console.extraEnv[].valueFrom",
    "console.extraVolumeMounts[]",
    "console.extraVolumes[]",
    "console.networkPolicy.extraEgress[]",
    "console.networkPolicy.from[]",
    "extraEnv[].valueFrom",
    "extraEnvFrom[]",
    "extraObjects[]",
    "extraVolumeMounts[]",
    "extraVolumes[]",
    "global",
    "networkPolicy.extraEgress[]",
    "networkPolicy.kafkaTo[]",
    "networkPolicy.scrapeFrom[]",
    "podMonitor.metricRelabelings[]",
    "podSecurityContext",
    "prometheusRule.extraRules[]",
    "securityContext",
    "topologySpreadConstraints[].labelSelector",
}


def values() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    return loaded


def schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    return loaded


def leaves(node: Any, path: str = "") -> Iterator[str]:  # noqa: ANN401 - YAML
    if isinstance(node, dict) and node:
        for name, child in node.items():
            yield from leaves(child, f"{path}.{name}".lstrip("."))
    else:
        yield path


def described() -> dict[str, str]:
    """Return what the comments of values.yaml say, by path."""
    found: dict[str, str] = {}
    path: list[str] = []
    comment: list[str] = []
    for line in (CHART / "values.yaml").read_text("utf-8").splitlines():
        text = line.strip()
        if text.startswith("# -- "):
            comment = [re.sub(r"^\([a-z/]+\) ", "", text.removeprefix("# -- "))]
        elif text.startswith("# ") and comment:
            comment.append(text.removeprefix("# "))
        elif match := re.match(r"( *)([A-Za-z_]+):", line):
            path = [*path[: len(match[1]) // 2], match[2]]
            if comment:
                found[".".join(path)] = " ".join(comment)
            comment = []
    return found


def rows() -> dict[str, str]:
    """Return the README's table of values: descriptions by path."""
    table = README.read_text("utf-8").partition("## Values")[2]
    cells = [
        line.strip("|").split(" | ", 3) for line in table.splitlines() if line.startswith("| ")
    ]
    return {cell[0].strip(): cell[3].strip() for cell in cells[1:]}


def test_every_value_is_in_the_readme_with_its_description() -> None:
    told, shown = described(), rows()
    assert shown == told, "run `make chart`"
    for path in leaves(values()):
        parts = path.split(".")
        assert any(".".join(parts[: n + 1]) in told for n in range(len(parts))), f"{path}: no words"


def test_the_readme_is_what_helm_docs_makes(tmp_path: Path) -> None:
    # A program in Go: where it is not to be had, the table has been compared above.
    tool = os.environ.get("HELM_DOCS") or shutil.which("helm-docs")
    if tool is not None:
        shutil.copytree(CHART, tmp_path / "chart")
        subprocess.run(
            [tool, "--chart-search-root", tmp_path, "--sort-values-order", "file"],
            check=True,
            capture_output=True,
            timeout=60,
        )
        assert (tmp_path / "chart" / "README.md").read_text("utf-8") == README.read_text("utf-8")
    defaults = {path.split(".")[0] for path in leaves(values())}
    assert defaults == {path.split(".")[0] for path in rows()}


def test_the_readmes_example_and_every_preset_render(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    example = tmp_path / "my-values.yaml"
    example.write_text(block, "utf-8")
    for preset in PRESETS.glob("*.yaml"):
        assert f"`presets/{preset.name}`" in README.read_text("utf-8")
        assert lint(preset, example).returncode == 0
        done = template(preset, example)
        assert done.returncode == 0, done.stderr
        for found in yaml.safe_load_all(done.stdout):
            validate(found)


def test_the_settings_in_the_schema_are_the_programs() -> None:
    made = chart_schema.config_schema()
    assert schema()["properties"]["config"] == made, "settings have changed: run `make chart`"
    console = schema()["properties"]["console"]["properties"]["settings"]
    assert console == chart_schema.console_schema(), "settings have changed: run `make chart`"


def test_every_value_is_in_the_schema_and_nothing_else_is_let_in() -> None:
    top = schema()
    assert values().keys() | {"global"} == top["properties"].keys()
    # The engine's own arguments are open: vLLM knows them, and the program asks it. The names in post.where and
    # post.deletes are places.
    places = {"config.post.where", "config.post.deletes"}
    assert set(_open_objects(top)) == OPEN | {"config.engine.extra"} | places


def _open_objects(node: dict[str, Any], path: str = "") -> Iterator[str]:
    if node.get("type") == "object" and node.get("additionalProperties") in (None, True):
        yield path
    for name, child in node.get("properties", {}).items():
        yield from _open_objects(child, f"{path}.{name}".lstrip("."))
    if isinstance(node.get("items"), dict):
        yield from _open_objects(node["items"], f"{path}[]")


def test_the_charts_idea_of_defaults_is_the_programs() -> None:
    helper = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "guard-defaults"}}
    include = '{{ include "stream-guard.defaults" . | fromYaml | toJson }}'
    found = render_with({"extraObjects": [{**helper, "data": {"a": f"'{include}'"}}]})
    (made,) = [m for m in found.of("ConfigMap") if m["metadata"]["name"] == "guard-defaults"]
    defaults = json.loads(made["data"]["a"].strip("'"))
    for section, settings in defaults.items():
        for name, value in settings.items():
            assert getattr(getattr(Settings(), section), name) == value, f"{section}.{name}"


def test_notes_name_commands_that_there_are() -> None:
    from typer.main import get_command

    from stream_guard.cli.main import app

    commands = get_command(app).commands  # type: ignore[attr-defined] # a group of commands
    notes = (CHART / "templates" / "NOTES.txt").read_text("utf-8")
    used = set(re.findall(r"-- stream-guard ([a-z-]+)", notes))
    assert used == {"check", "tail"}
    assert used <= commands.keys()
    (test,) = render("minimal").of("Pod")
    assert test["spec"]["containers"][0]["args"][0] in commands


@pytest.mark.parametrize("kubernetes", ["1.29.0", "1.37.0"])
def test_the_oldest_and_the_newest_kubernetes_take_the_objects(kubernetes: str) -> None:
    import kubernetes_validate

    for found in [*render("minimal").objects, *render("network-policy").objects]:
        kubernetes_validate.validate(found, kubernetes, strict=True)


def test_user_home_and_port_are_the_images() -> None:
    image = (ROOT / "Dockerfile").read_text("utf-8")
    found = render("minimal")
    security = found.pod["securityContext"]
    assert f"USER {security['runAsUser']}:{security['runAsGroup']}\n" in image
    home = found.env["HOME"]
    assert f"HOME={home} " in image
    assert home in found.mounts
    for path in re.findall(r"(?:HF_HOME|XDG_CACHE_HOME|TRITON_CACHE_DIR)=(\S+)", image):
        assert path.startswith((f"{home}/", "/opt/")), "the root file system is read-only"
    assert f"EXPOSE {found.container['ports'][0]['containerPort']}\n" in image


def test_the_charts_version_of_the_program_is_this_one() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert f'fallback_version = "{chart["appVersion"]}"' in project


def test_a_missing_helm_is_a_failure_that_says_where_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HELM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(AssertionError, match="HELM=/path/to/helm"):
        helm.__wrapped__()
