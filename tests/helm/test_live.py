"""An upgrade of a release that runs: what the chart reads of the cluster first."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.helm.api_server import cluster_with, template_on
from tests.helm.chart import RELEASE, files_of, render, template

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helm.chart import Object


def live(case: str, count: int = 1) -> Object:
    """Return a case's StatefulSet as a cluster holds it, scaled to a count of replicas."""
    found = copy.deepcopy(render(case).one("StatefulSet"))
    found["spec"]["replicas"] = count
    return found


def replicas(text: str) -> int | None:
    (found,) = [o for o in yaml.safe_load_all(text) if o and o["kind"] == "StatefulSet"]
    count: int | None = found["spec"].get("replicas")
    return count


@pytest.mark.parametrize("count", [3, 0])
def test_enabling_autoscaling_keeps_the_count_that_runs(tmp_path: Path, count: int) -> None:
    with cluster_with(live("autoscaling", count), tmp_path) as config:
        done = template_on(config, *files_of("autoscaling"))
    assert done.returncode == 0, done.stderr
    assert replicas(done.stdout) == count


def test_without_a_release_or_autoscaling_the_count_is_not_the_clusters(tmp_path: Path) -> None:
    assert replicas(template(*files_of("autoscaling")).stdout) is None
    with cluster_with(live("minimal", 7), tmp_path) as config:
        done = template_on(config, *files_of("minimal"), values={"replicas": 2})
    assert replicas(done.stdout) == 2


@pytest.mark.parametrize("size", ["100Gi", "102400Mi"])
def test_an_upgrade_that_changes_nothing_fixed_is_let_through(tmp_path: Path, size: str) -> None:
    found = live("cache-per-replica")
    storage = found["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]
    written = storage["storage"]
    with cluster_with(found, tmp_path) as config:
        same = template_on(config, *files_of("cache-per-replica"))
        assert same.returncode == 0, same.stderr
        storage["storage"] = "100Gi"
        done = template_on(
            config, *files_of("cache-per-replica"), values={"cache.size": size, "replicas": 3}
        )
    assert written != "100Gi"
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("case", "values", "says"),
    [
        (
            "minimal",
            {"podManagementPolicy": "OrderedReady"},
            ("podManagementPolicy cannot change from Parallel to OrderedReady", "--cascade=orphan"),
        ),
        (
            "minimal",
            {"cache.type": "claimPerReplica"},
            ("cache.type cannot change from emptyDir to claimPerReplica", "the pods start anew"),
        ),
        (
            "cache-per-replica",
            {"cache.type": "emptyDir"},
            ("cache.type cannot change from claimPerReplica to emptyDir",),
        ),
        (
            "cache-per-replica",
            {"cache.size": "500Gi"},
            ("cache.size cannot change from", "to 500Gi", "--cascade=orphan", "kubectl patch pvc"),
        ),
        (
            "cache-per-replica",
            {"cache.storageClassName": "slow"},
            ("cache.storageClassName cannot change from", 'to "slow"'),
        ),
        (
            "minimal",
            {"nameOverride": "other", "fullnameOverride": f"{RELEASE}-stream-guard"},
            ("nameOverride cannot change",),
        ),
    ],
)
def test_what_cannot_change_in_place_is_refused_with_the_way_to_do_it(
    tmp_path: Path, case: str, values: dict[str, Any], says: tuple[str, ...]
) -> None:
    with cluster_with(live(case), tmp_path) as config:
        done = template_on(config, *files_of(case), values=values)
    assert done.returncode != 0
    assert "nil pointer" not in done.stderr
    for words in (*says, f"kubectl -n trust delete statefulset {RELEASE}-stream-guard"):
        assert words in done.stderr, done.stderr
    # Without a cluster to ask, the same values render.
    assert template(*files_of(case), values=values).returncode == 0
