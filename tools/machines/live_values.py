"""Values and topics of the chart's live checks."""

from __future__ import annotations

from typing import Any

import yaml

from tools.machines.cluster import CHART

NAMESPACE = "stream-guard-live"
POSTS = "live.posts"
OUT = ("live.verdicts", "live.dead-letters")
PARTITIONS = 6
RATE = 200
GAP_S_MAX = 10.0
# The default of ``delivery.commit_interval_ms``: a crash repeats at most the posts of this time.
COMMIT_INTERVAL_S = 1.0
# A quarter of the chart's default: partitions of a pod that is scaled away wait for this long.
SESSION_TIMEOUT_MS = 30_000
TOUTING = (
    "# Spam\n\nAnswer `VIOLATES` or `SAFE`.\n\n## Violates (SP1 - Spam)\n\n- SP1.a advertises\n"
)


def base_values(image: str, bootstrap: str) -> dict[str, Any]:
    """Return values for the scripted engine, on nodes without a GPU."""
    repository, _, tag = image.rpartition(":")
    return {
        "image": {"repository": repository, "tag": tag},
        "kafka": {
            "bootstrapServers": bootstrap,
            "topics": [POSTS],
            "partitions": PARTITIONS,
            "groupId": "live",
        },
        "policies": {"files": {"spam": {"policy": TOUTING}}},
        "gpu": {"count": 0},
        "replicas": 3,
        "config": {
            "engine": {"kind": "scripted", "start_timeout_s": 170},
            "kafka": {
                "verdict_topic": OUT[0],
                "dead_letter_topic": OUT[1],
                "session_timeout_ms": SESSION_TIMEOUT_MS,
            },
        },
        "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}},
        "startupProbe": {"periodSeconds": 1, "failureThreshold": 180},
        "readinessProbe": {"periodSeconds": 2},
        "tolerations": [],
        "test": {"timeoutSeconds": 60},
    }


def engine_values(image: str, bootstrap: str) -> dict[str, Any]:
    """Return the preset of a first start, with the secured listener and topics of its own."""
    values: dict[str, Any] = yaml.safe_load((CHART / "presets/first-start.yaml").read_text())
    values["image"] = base_values(image, "")["image"]
    values["kafka"] = {
        "bootstrapServers": bootstrap,
        "topics": ["vllm.posts"],
        "groupId": "vllm",
        "partitions": PARTITIONS,
        "security": {
            "protocol": "SASL_SSL",
            "saslMechanism": "PLAIN",
            "saslSecret": {"name": "kafka-user"},
            "caSecret": {"name": "kafka-ca"},
        },
    }
    topics = {"verdict_topic": "vllm.verdicts", "dead_letter_topic": "vllm.dead-letters"}
    values["config"]["kafka"] = topics
    values["resources"]["requests"] = {"cpu": "500m", "memory": "2Gi"}
    return values
