"""What cannot work does not render, and says which value to change."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.helm.chart import CHART, VALUES, files_of, run_helm, template

if TYPE_CHECKING:
    from pathlib import Path

CLAIM = {"name": "models"}
SCRAM = {"protocol": "SASL_SSL", "saslMechanism": "SCRAM-SHA-512", "saslSecret": {"name": "u"}}

# Case to start from, values by path, and what the sentence says.
REFUSED: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    # A backfill
    ("minimal", {"backfill.enabled": True}, ("backfill.args is empty",)),
    (
        "minimal",
        {"backfill.enabled": True, "backfill.args": ["posts.jsonl", "--actors", "2"]},
        ("backfill.args has --actors", "backfill.actors"),
    ),
    # The console
    ("console", {"console.publicUrl": ""}, ("console.publicUrl is required",)),
    ("console", {"console.publicUrl": "console.example"}, ("publicUrl",)),
    (
        "console",
        {
            "console.tokensSecret.name": "",
            "console.settings.oidc.issuer": "",
            "console.oidcSecret.name": "",
        },
        ("console.tokensSecret.name is required", "console.settings.oidc.issuer"),
    ),
    (
        "console",
        {"console.settings.oidc.issuer": ""},
        ("console.oidcSecret.name needs console.settings.oidc.issuer",),
    ),
    ("console", {"console.settings.port": 80}, ("port",)),
    (
        "console",
        {"config.review": {"database": "postgresql://u:p@db/r"}},
        ("STREAM_GUARD_REVIEW__DATABASE is set twice", "console.extraEnv"),
    ),
    # Kafka
    ("minimal", {"kafka.bootstrapServers": ""}, ("kafka.bootstrapServers is empty",)),
    ("minimal", {"kafka.bootstrapServers": "kafka"}, ("kafka.bootstrapServers",)),
    ("minimal", {"kafka.topics": []}, ("kafka.topics is empty", "kafka.topicPattern")),
    ("minimal", {"kafka.topicPattern": "p.*"}, ("kafka.topics and kafka.topicPattern",)),
    (
        "minimal",
        {"kafka.security.protocol": "SASL_SSL"},
        ("kafka.security.saslMechanism is required",),
    ),
    (
        "minimal",
        {"kafka.security.saslMechanism": "PLAIN"},
        ("kafka.security.saslMechanism PLAIN needs", "not PLAINTEXT"),
    ),
    (
        "minimal",
        {"kafka.security": {"protocol": "SASL_SSL", "saslMechanism": "PLAIN"}},
        ("kafka.security.saslSecret.name is required",),
    ),
    (
        "minimal",
        {"kafka.security": {"protocol": "SASL_SSL", "saslMechanism": "OAUTHBEARER"}},
        ("kafka.security.oauthTokenHook is required",),
    ),
    (
        "minimal",
        {"kafka.security": {"clientSecret": {"name": "tls"}}},
        ("kafka.security.clientSecret need", "SSL"),
    ),
    ("minimal", {"kafka.security.password": "hunter2"}, ("password",)),
    ("minimal", {"config.kafka.security": {"password": "hunter2"}}, ("security",)),
    # Replicas
    (
        "minimal",
        {"replicas": 5, "kafka.partitions": 4},
        ("replicas (5) is above kafka.partitions (4)",),
    ),
    (
        "existing-claim-one-node",
        {"replicas": 2},
        ("replicas (2) is above 1", "model.existingClaim.accessMode ReadWriteOnce"),
    ),
    (
        "new-claim",
        {"model.newClaim.accessMode": "ReadWriteOncePod"},
        ("replicas (2) is above 1", "model.newClaim.accessMode ReadWriteOncePod"),
    ),
    (
        "existing-claim-one-node",
        {"autoscaling.enabled": True, "kafka.partitions": 3},
        ("autoscaling.maxReplicas (3) is above 1", "model.existingClaim.accessMode"),
    ),
    (
        "minimal",
        {"autoscaling.enabled": True},
        ("kafka.partitions is required with autoscaling.enabled",),
    ),
    (
        "autoscaling",
        {"autoscaling.maxReplicas": 13},
        ("autoscaling.maxReplicas (13) is above kafka.partitions (12)",),
    ),
    (
        "autoscaling",
        {"autoscaling.minReplicas": 4, "autoscaling.maxReplicas": 3},
        ("autoscaling.minReplicas (4) is above autoscaling.maxReplicas (3)",),
    ),
    (
        "oauthbearer",
        {"autoscaling.enabled": True, "kafka.partitions": 3},
        ("autoscaling.authenticationRef is required with OAUTHBEARER",),
    ),
    (
        "disruption-budget",
        {"podDisruptionBudget.minAvailable": 3},
        ("podDisruptionBudget.minAvailable (3) must be below the replicas (3)",),
    ),
    ("minimal", {"replicas": -1}, ("replicas",)),
    # Times
    (
        "minimal",
        {"terminationGracePeriodSeconds": 60},
        ("terminationGracePeriodSeconds (60) must exceed 60 s", "config.delivery.drain_timeout_s"),
    ),
    (
        "minimal",
        {"config.delivery.drain_timeout_s": 60, "config.kafka.rebalance_timeout_ms": 100000},
        ("terminationGracePeriodSeconds (90) must exceed 95 s", "drain_timeout_s (60)"),
    ),
    (
        "minimal",
        {"config.engine.start_timeout_s": 2160},
        ("startupProbe.failureThreshold (144)", "config.engine.start_timeout_s (2160)"),
    ),
    (
        "minimal",
        {"config.delivery.drain_timeout_s": 86, "terminationGracePeriodSeconds": 300},
        ("config.kafka.rebalance_timeout_ms (90000) must exceed",),
    ),
    (
        "minimal",
        {"config.kafka.heartbeat_interval_ms": 40001},
        ("config.kafka.heartbeat_interval_ms (40001)", "session_timeout_ms (120000)"),
    ),
    # Model
    (
        "minimal",
        {"model.source": "existingClaim"},
        ("model.existingClaim.name is required",),
    ),
    ("minimal", {"model.source": "hostPath"}, ("model.hostPath.path is required",)),
    ("minimal", {"model.source": "image"}, ("model.image.reference is required",)),
    ("minimal", {"model.source": "s3"}, ("model.source",)),
    ("minimal", {"model.name": ""}, ("model.name is required with model.source none",)),
    (
        "host-path",
        {"model.hubTokenSecret.name": "hub"},
        ("model.hubTokenSecret is for what is downloaded", "hostPath"),
    ),
    (
        "minimal",
        {"gpu.count": 2},
        ("gpu.count (2) must equal config.engine.tensor_parallel_size (1)",),
    ),
    (
        "cpu",
        {"config.engine.tensor_parallel_size": 2},
        ("gpu.count (0) must equal config.engine.tensor_parallel_size (2)",),
    ),
    # Policies
    ("minimal", {"policies.files": {}}, ("policies.files is empty",)),
    (
        "policies-several",
        {"policies.routes": ""},
        ("policies.routes is empty", "2 policies", "default: [scams.en]"),
    ),
    ("minimal", {"policies.files": {"no/id": {"policy": "x"}}}, ("no/id",)),
    (
        "minimal",
        {"policies.source": "path", "policies.path": "/p"},
        ("policies.files and policies.routes are for policies.source values",),
    ),
    ("policies-path", {"policies.path": ""}, ("policies.path is required",)),
    (
        "policies-existing-configmap",
        {"policies.existingConfigMap.items": []},
        ("policies.existingConfigMap.items are required",),
    ),
    ("policies-git-ssh", {"policies.gitSync.repo": ""}, ("policies.gitSync.repo is required",)),
    # Names that are not known, and types that are wrong
    ("minimal", {"replica": 2}, ("replica",)),
    ("minimal", {"model.newClaim.accessModes": ["ReadWriteMany"]}, ("accessModes",)),
    ("minimal", {"config.engin": {}}, ("engin",)),
    ("minimal", {"config.engine.max_num_seq": 4}, ("max_num_seq",)),
    ("minimal", {"config.engine.max_num_seqs": "many"}, ("config.engine.max_num_seqs", "integer")),
    ("minimal", {"config.engine.max_num_seqs": 0}, ("config.engine.max_num_seqs",)),
    ("minimal", {"config.engine.model": "x"}, ("config.engine", "model")),
    ("minimal", {"config.kafka.topics": ["x"]}, ("config.kafka", "topics")),
    ("minimal", {"livenessProbe.initialDelaySeconds": 3}, ("initialDelaySeconds",)),
    (
        "minimal",
        {"extraEnv": [{"name": "STREAM_GUARD_KAFKA__GROUP_ID", "value": "x"}]},
        ("extraEnv: STREAM_GUARD_KAFKA__GROUP_ID is set by the chart",),
    ),
    (
        "minimal",
        {"extraEnv": [{"name": "A", "value": "x"}, {"name": "A", "value": "y"}]},
        ("extraEnv: A is set by the chart or twice",),
    ),
    (
        "monitoring",
        {"prometheusRule.disabled": ["StreamGuardDwon"]},
        ("prometheusRule.disabled: there is no alert StreamGuardDwon", "StreamGuardDown"),
    ),
]


@pytest.mark.parametrize(
    ("case", "values", "says"),
    REFUSED,
    ids=[f"{case}:{','.join(values)}" for case, values, _ in REFUSED],
)
def test_a_sentence_names_the_value(
    case: str, values: dict[str, Any], says: tuple[str, ...]
) -> None:
    done = template(*files_of(case), values=values)
    assert done.returncode != 0
    # A schema's path is written kafka.topics by Helm 3 and /kafka/topics by later ones.
    said = done.stderr.replace("\n", " ")
    slashed = re.sub(r"'/([\w/]+)'", lambda path: path[1].replace("/", "."), said)
    for words in says:
        assert words in said or words in slashed, said
    assert "nil pointer" not in done.stderr
    assert "hunter2" not in done.stderr


def test_an_image_volume_needs_a_cluster_that_knows_them() -> None:
    values = VALUES / "image-volume.yaml"
    old = run_helm("template", "x", CHART, "--values", values, "--kube-version", "v1.30.9")
    assert old.returncode != 0
    assert "model.source image needs Kubernetes 1.31 or newer, and this is v1.30.9" in old.stderr


def test_policies_larger_than_a_config_map_are_sent_to_git(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_text(f"policies: {{files: {{long: {{policy: {'x' * 1_000_001}}}}}, routes: a}}\n")
    done = template(VALUES / "minimal.yaml", large)
    assert done.returncode != 0
    assert "policies.files has 1000" in done.stderr
    assert "use policies.source gitSync" in done.stderr
