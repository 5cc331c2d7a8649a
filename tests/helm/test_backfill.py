"""The backfill's Ray cluster: what KubeRay makes of it is checked against KubeRay's own definitions in every case."""

from __future__ import annotations

import shlex
from importlib.metadata import version

import jsonschema
import pytest

from tests.helm.chart import Object, Rendered, render, render_with, validate

PRESET = "preset/backfill-h100"


def cluster_of(rendered: Rendered, kind: str = "RayJob") -> Object:
    spec: Object = rendered.one(kind)["spec"]
    return spec["rayClusterSpec"] if kind == "RayJob" else spec


def test_an_actor_has_a_worker_with_the_gpus_of_a_replica() -> None:
    cluster = cluster_of(render(PRESET))
    (group,) = cluster["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert (group["replicas"], group["maxReplicas"]) == (4, 4)
    assert group["rayStartParams"]["num-gpus"] == "1"
    for kind in ("requests", "limits"):
        assert container["resources"][kind]["nvidia.com/gpu"] == "1"
    assert group["template"]["spec"]["nodeSelector"]
    head = cluster["headGroupSpec"]
    (of_head,) = head["template"]["spec"]["containers"]
    assert head["rayStartParams"]["num-cpus"] == "0", "it judges nothing"
    assert "nvidia.com/gpu" not in of_head["resources"]["limits"]


def test_the_command_asks_for_what_the_cluster_has() -> None:
    words = shlex.split(render(PRESET).one("RayJob")["spec"]["entrypoint"])
    assert words[:2] == ["stream-guard", "backfill"]
    assert words[2:7] == ["topic:posts", "--policy", "spam", "--out", "/backfill/spam"]
    assert words[7:] == ["--address", "auto", "--actors", "4", "--cpus", "1", "--gpus", "1"]


def test_the_command_is_one_that_the_program_takes() -> None:
    from typer.testing import CliRunner

    from stream_guard.cli.main import app

    words = shlex.split(render(PRESET).one("RayJob")["spec"]["entrypoint"])[1:]
    done = CliRunner().invoke(app, [*words, "--help"])
    assert done.exit_code == 0
    done = CliRunner().invoke(app, [*words, "--path", "nowhere"])
    assert "nowhere" in str(done.exception), "the options are known, and only the folder is missing"


def test_an_argument_with_spaces_stays_one() -> None:
    args = ["a folder", "--policy", "spam", "--out", "o'clock"]
    rendered = render_with({"backfill.enabled": True, "backfill.args": args})
    words = shlex.split(rendered.one("RayJob")["spec"]["entrypoint"])
    assert words[2:7] == args


def test_every_node_has_the_policies_the_brokers_and_the_claim_of_the_output() -> None:
    cluster = cluster_of(render(PRESET))
    for template in (
        cluster["headGroupSpec"]["template"],
        cluster["workerGroupSpecs"][0]["template"],
    ):
        (container,) = template["spec"]["containers"]
        names = {one["name"] for one in container["env"]}
        assert {
            "STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS",
            "STREAM_GUARD_POLICIES__PATH",
            "RAY_USAGE_STATS_ENABLED",
        } <= names
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/backfill", "/etc/stream-guard/policies", "/tmp", "/dev/shm"} <= mounts  # noqa: S108 - a mount's path
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_the_release_of_ray_is_the_pinned_one() -> None:
    assert cluster_of(render(PRESET))["rayVersion"] == version("ray")


def test_a_cluster_that_stays_has_caches_of_its_own() -> None:
    cluster = cluster_of(render("backfill-cluster"), "RayCluster")
    template = cluster["workerGroupSpecs"][0]["template"]
    (container,) = template["spec"]["containers"]
    assert container["image"] == "registry.example/guard-ray:1"
    (cache,) = [volume for volume in template["spec"]["volumes"] if volume["name"] == "cache"]
    assert "emptyDir" in cache


def test_the_service_is_as_it_was() -> None:
    without = render_with({"backfill.enabled": False}, PRESET)
    assert not without.of("RayJob")
    assert render(PRESET).one("StatefulSet") == without.one("StatefulSet")


def test_a_field_that_kuberay_does_not_know_is_found() -> None:
    job = {**render(PRESET).one("RayJob")}
    job["spec"] = {**job["spec"], "entryPoint": "x"}
    with pytest.raises(jsonschema.ValidationError):
        validate(job)
