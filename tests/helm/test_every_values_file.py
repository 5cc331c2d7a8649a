"""Whatever is chosen: Helm finds nothing to object to, Kubernetes takes every object, the program every variable."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import jsonschema
import kubernetes_validate
import pytest

from stream_guard.policies.store import load_policies
from stream_guard.settings import ENV_PREFIX, load_settings
from tests.helm.chart import CASES, Object, files_of, lint, render, validate

if TYPE_CHECKING:
    from pathlib import Path

    from stream_guard.settings import Settings

# A value for what a Secret or a field holds, where not every text would do.
SECRET = "s3cret-from-elsewhere"  # noqa: S105 - made up
every_case = pytest.mark.parametrize("case", CASES)


def test_there_is_a_case_for_every_feature() -> None:
    assert len(CASES) >= 20
    assert sum(case.startswith("preset/") for case in CASES) == 7


def test_the_chart_alone_passes_lint() -> None:
    done = lint()
    assert done.returncode == 0, done.stdout


@every_case
def test_lint_has_nothing_to_object_to(case: str) -> None:
    done = lint(*files_of(case))
    assert done.returncode == 0, done.stdout
    assert "Fail:" not in done.stderr, "lint lets our own refusals pass"


@every_case
def test_kubernetes_takes_every_object(case: str) -> None:
    rendered = render(case)
    assert rendered.objects
    for found in rendered.objects:
        validate(found)


def test_validation_finds_a_field_that_is_misspelt_in_kubernetes_kinds_and_in_custom_ones() -> None:
    policy = {**render("network-policy").one("NetworkPolicy")}
    policy["spec"] = {**policy["spec"], "egres": []}
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(policy)
    monitor = {**render("monitoring").one("PodMonitor")}
    monitor["spec"] = {**monitor["spec"], "endpoints": []}
    with pytest.raises(jsonschema.ValidationError):
        validate(monitor)


@every_case
def test_names_are_unique_and_carry_the_release(case: str) -> None:
    objects = render(case).objects
    names = [(found["kind"], found["metadata"]["name"]) for found in objects]
    assert len(names) == len(set(names))
    assert all("guard" in name for _, name in names)


@every_case
def test_every_mount_has_its_volume_and_every_volume_a_mount(case: str) -> None:
    pods = [render(case).pod, *(found["spec"] for found in render(case).of("Pod"))]
    claims = render(case).one("StatefulSet")["spec"].get("volumeClaimTemplates", [])
    for pod in pods:
        there = {volume["name"] for volume in pod["volumes"]}
        if pod is pods[0]:
            there |= {claim["metadata"]["name"] for claim in claims}
        containers = [*pod["containers"], *pod.get("initContainers", [])]
        used = {m["name"] for container in containers for m in container["volumeMounts"]}
        assert used == there


@every_case
def test_selectors_choose_the_consumers_pods_and_not_the_tests(case: str) -> None:
    rendered = render(case)
    pod_labels = rendered.one("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    chosen = [rendered.one("StatefulSet")["spec"]["selector"]["matchLabels"]]
    chosen += [rendered.one("Service")["spec"]["selector"]]
    for kind in ("PodDisruptionBudget", "PodMonitor"):
        chosen += [found["spec"]["selector"]["matchLabels"] for found in rendered.of(kind)]
    for selector in chosen:
        assert selector.items() <= pod_labels.items()
        for test in rendered.of("Pod"):
            assert not selector.items() <= test["metadata"]["labels"].items()


@every_case
def test_pods_meet_the_restricted_pod_security_standard(case: str) -> None:
    rendered = render(case)
    for pod in [rendered.pod, *(found["spec"] for found in rendered.of("Pod"))]:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert {"requests", "limits"} <= container["resources"].keys()
            assert "memory" in container["resources"]["limits"]


def environment_of(container: Object) -> dict[str, str]:
    """Return a container's variables, with something in the place of what only a cluster knows."""
    return {v["name"]: v.get("value", SECRET) for v in container["env"]}


def load(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> Settings:
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        if name.startswith(ENV_PREFIX):
            monkeypatch.setenv(name, value)
    return load_settings()


@every_case
def test_the_program_takes_every_variable_and_the_chart_and_it_agree(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = render(case)
    for container in [
        rendered.container,
        *(p["spec"]["containers"][0] for p in rendered.of("Pod")),
    ]:
        names = [variable["name"] for variable in container["env"]]
        assert len(names) == len(set(names))
        settings = load(monkeypatch, environment_of(container))
        read = settings.kafka.topics or settings.side_topics.read
        assert bool(read) != bool(settings.kafka.topic_pattern)
    settings = load(monkeypatch, environment_of(rendered.container))
    delivery = settings.delivery
    (port,) = rendered.container["ports"]
    assert port["containerPort"] == settings.http.port
    assert settings.http.host == "0.0.0.0"  # noqa: S104 - as probes need it
    assert (
        rendered.pod["terminationGracePeriodSeconds"]
        > delivery.drain_timeout_s + delivery.commit_timeout_s + 3 * delivery.stop_timeout_s
    )
    probe = rendered.container["startupProbe"]
    waited_s = probe["periodSeconds"] * probe["failureThreshold"]
    assert waited_s > max(settings.engine.start_timeout_s, 30 * 60)


@every_case
def test_probes_ask_for_what_they_should(case: str) -> None:
    container = render(case).container
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container["startupProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}


@every_case
def test_no_secret_is_in_the_text(case: str) -> None:
    text = render(case).text
    for name in ("PASSWORD", "USERNAME", "HF_TOKEN"):
        for line in re.findall(rf"name: \S*{name}\n(.*)", text):
            assert "secretKeyRef" in line


@every_case
def test_policies_in_a_config_map_are_what_the_program_reads(case: str, tmp_path: Path) -> None:
    rendered = render(case)
    volume = rendered.volumes.get("policies", {}).get("configMap")
    maps = {m["metadata"]["name"]: m["data"] for m in rendered.of("ConfigMap")}
    if volume is None or volume["name"] not in maps:
        assert case.startswith("policies-"), "no other case takes its policies from elsewhere"
        return
    assert {item["key"] for item in volume["items"]} == maps[volume["name"]].keys()
    for item in volume["items"]:  # as the kubelet lays them out
        file = tmp_path / item["path"]
        file.parent.mkdir(exist_ok=True)
        file.write_text(maps[volume["name"]][item["key"]], "utf-8")
    assert load_policies(tmp_path).policies
