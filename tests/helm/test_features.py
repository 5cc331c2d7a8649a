"""What matters in each values file, looked at by itself."""

from __future__ import annotations

import json

import pytest

from tests.helm.chart import CASES, NAMESPACE, render, render_with

ENV = "STREAM_GUARD_"


# Identity, updates, scheduling


def test_pods_are_static_members_under_their_own_names() -> None:
    found = render("minimal")
    assert found.env_from[f"{ENV}KAFKA__GROUP_INSTANCE_ID"] == {
        "fieldRef": {"fieldPath": "metadata.name"}
    }
    assert f"{ENV}KAFKA__GROUP_INSTANCE_ID" not in render("topic-pattern").env_from
    spec = found.one("StatefulSet")["spec"]
    assert spec["serviceName"] == found.one("Service")["metadata"]["name"]
    assert found.one("Service")["spec"]["clusterIP"] == "None"


def test_an_update_takes_one_pod_at_a_time_in_place() -> None:
    spec = render("minimal").one("StatefulSet")["spec"]
    assert spec["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
    assert spec["podManagementPolicy"] == "Parallel"
    canary = render("updates").one("StatefulSet")["spec"]
    assert canary["updateStrategy"]["rollingUpdate"] == {"partition": 3}
    assert canary["podManagementPolicy"] == "OrderedReady"
    by_hand = render("on-delete").one("StatefulSet")["spec"]
    assert by_hand["updateStrategy"] == {"type": "OnDelete"}


def test_a_new_version_of_the_chart_alone_restarts_nothing() -> None:
    template = render("minimal").one("StatefulSet")["spec"]["template"]
    assert (
        not {"helm.sh/chart", "app.kubernetes.io/version"} & template["metadata"]["labels"].keys()
    )


def test_gpus_are_requested_under_the_clusters_name_for_them() -> None:
    for kind in ("requests", "limits"):
        assert render("minimal").container["resources"][kind]["nvidia.com/gpu"] == "1"
        assert render("scheduling").container["resources"][kind]["nvidia.com/mig-3g.40gb"] == "1"
        assert not any("gpu" in name for name in render("cpu").container["resources"][kind])


def test_shared_memory_is_memory_of_the_size_that_is_asked_for() -> None:
    found = render("scheduling")
    assert found.mounts["/dev/shm"]["name"] == "shared-memory"  # noqa: S108 - where engines look
    assert found.volumes["shared-memory"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "4Gi"}


def test_scheduling_reaches_the_pod_and_spreading_finds_its_own_pods() -> None:
    pod = render("scheduling").pod
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["tolerations"][0]["key"] == "gpu"
    assert pod["priorityClassName"] == "moderation"
    assert pod["runtimeClassName"] == "nvidia"
    first, second = pod["topologySpreadConstraints"]
    assert first["labelSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "guard"
    assert second["labelSelector"] == {"matchLabels": {"mine": "yes"}}
    assert {c["topologyKey"] for c in render("minimal").pod["topologySpreadConstraints"]} == {
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    }


# The model, and what the program writes


def test_whatever_the_program_writes_lies_on_a_volume() -> None:
    found = render("minimal")
    assert found.env["HOME"] == "/var/lib/stream-guard"
    assert found.mounts["/var/lib/stream-guard"]["name"] == "cache"
    assert found.mounts["/tmp"]["name"] == "tmp"  # noqa: S108 - the pod's own
    assert found.volumes["cache"]["emptyDir"] == {"sizeLimit": "50Gi"}
    assert found.env["USER"], "Torch asks for the user's name, and the id has none in the image"


def test_without_a_volume_the_model_is_downloaded_by_name() -> None:
    found = render("cache-per-replica")
    assert found.env[f"{ENV}ENGINE__MODEL"] == "openai/gpt-oss-safeguard-20b"
    assert "/models" not in found.mounts
    assert found.env_from["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "hf"}}
    spec = found.one("StatefulSet")["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "cache"
    assert claim["spec"]["resources"]["requests"]["storage"] == "80Gi"
    assert claim["spec"]["storageClassName"] == "fast"
    assert spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete"


@pytest.mark.parametrize(
    ("case", "volume", "model"),
    [
        (
            "existing-claim",
            {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
            "/models/gpt-oss-safeguard-20b",
        ),
        (
            "existing-claim-one-node",
            {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
            "/models",
        ),
        (
            "host-path",
            {"hostPath": {"path": "/var/lib/models", "type": "Directory"}},
            "/models/20b",
        ),
        (
            "image-volume",
            {
                "image": {
                    "reference": "registry.example/models/safeguard-20b@sha256:abc",
                    "pullPolicy": "Always",
                }
            },
            "/models",
        ),
    ],
)
def test_a_model_in_a_volume_is_a_folder_that_is_only_read(
    case: str, volume: dict[str, object], model: str
) -> None:
    found = render(case)
    assert found.volumes["model"] == {"name": "model", **volume}
    assert found.mounts["/models"]["readOnly"] is True
    assert found.env[f"{ENV}ENGINE__MODEL"] == model
    assert "HF_HOME" not in found.env


def test_a_new_claim_is_downloaded_into_and_outlives_the_release() -> None:
    found = render("new-claim")
    claim = found.one("PersistentVolumeClaim")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    name = claim["metadata"]["name"]
    assert found.volumes["model"]["persistentVolumeClaim"] == {"claimName": name, "readOnly": False}
    assert found.env["HF_HOME"] == "/models"
    assert found.env[f"{ENV}ENGINE__MODEL"] == "openai/gpt-oss-safeguard-20b"


# Policies


def test_policies_from_values_are_laid_out_as_folders_and_can_be_swapped_while_mounted() -> None:
    found = render("policies-several")
    volume = found.volumes["policies"]["configMap"]
    assert {item["path"] for item in volume["items"]} == {
        "routes.yaml",
        "spam/policy.md",
        "scams.en/policy.md",
        "scams.en/policy.yaml",
        "scams.en/rules.yaml",
    }
    mount = found.mounts["/etc/stream-guard/policies"]
    assert "subPath" not in mount, "a subPath is never updated"
    text = found.one("ConfigMap")["data"]["spam.policy.md"]
    assert text.endswith('- SP1.a advertises: "100 % {{ .not a template }}"\n')


def test_an_edit_restarts_pods_only_where_the_program_does_not_reload() -> None:
    files = {"spam": {"policy": "# other\n"}}

    def annotations(case: str, values: dict[str, object]) -> dict[str, str]:
        found = render_with(values, case).one("StatefulSet")
        made: dict[str, str] = found["spec"]["template"]["metadata"]["annotations"]
        return made

    live = annotations("minimal", {}), annotations("minimal", {"policies.files": files})
    assert live[0] == live[1]
    still = (
        annotations("policies-no-reload", {}),
        annotations("policies-no-reload", {"policies.files": files}),
    )
    assert still[0]["checksum/policies"] != still[1]["checksum/policies"]


def test_an_existing_config_map_is_mounted_as_its_items_say() -> None:
    found = render("policies-existing-configmap")
    assert found.volumes["policies"]["configMap"] == {
        "name": "house-rules",
        "items": [
            {"key": "spam.md", "path": "spam/policy.md"},
            {"key": "routes", "path": "routes.yaml"},
        ],
    }
    assert not found.of("ConfigMap")


def test_git_syncs_once_before_the_program_starts_and_then_beside_it() -> None:
    found = render("policies-git-ssh")
    (first,) = found.pod["initContainers"]
    (beside,) = [c for c in found.pod["containers"] if c["name"] == "policies-sync"]
    assert "--one-time" in first["args"]
    assert "--one-time" not in beside["args"]
    assert "--period=30s" in beside["args"]
    for container in (first, beside):
        assert "--ref=live" in container["args"]
        assert "--ssh-key-file=/etc/git-secret/ssh" in container["args"]
    assert found.volumes["git-secret"]["secret"]["secretName"] == "policies-deploy-key"
    # git-sync makes /git/current; the program sees the same volume elsewhere, and only reads it.
    assert found.mounts["/etc/stream-guard/git"] == {
        "name": "policies",
        "mountPath": "/etc/stream-guard/git",
        "readOnly": True,
    }
    assert found.env[f"{ENV}POLICIES__PATH"] == "/etc/stream-guard/git/current/policies"


def test_git_by_https_takes_its_password_from_the_secret() -> None:
    found = render("policies-git-https")
    (first,) = found.pod["initContainers"]
    assert "--password-file=/etc/git-secret/password" in first["args"]
    assert first["env"][0]["valueFrom"]["secretKeyRef"] == {
        "name": "policies-token",
        "key": "username",
    }
    assert found.env[f"{ENV}POLICIES__PATH"] == "/etc/stream-guard/git/current"


def test_policies_in_the_image_need_no_volume() -> None:
    found = render("policies-path")
    assert found.env[f"{ENV}POLICIES__PATH"] == "/app/policies"
    assert "policies" not in found.volumes


# Kafka


def test_a_password_comes_from_its_secret_into_program_and_test_alike() -> None:
    found = render("sasl-scram")
    (test,) = found.of("Pod")
    for container in (found.container, test["spec"]["containers"][0]):
        by_name = {v["name"]: v for v in container["env"]}
        assert by_name[f"{ENV}KAFKA__SECURITY__USERNAME"]["valueFrom"] == {
            "secretKeyRef": {"name": "kafka-user", "key": "username"}
        }
        file = by_name[f"{ENV}KAFKA__SECURITY__PASSWORD_FILE"]["value"]
        assert file == "/etc/stream-guard/kafka-sasl/pass"
        assert by_name[f"{ENV}KAFKA__SECURITY__SASL_MECHANISM"]["value"] == "SCRAM-SHA-512"
        assert by_name[f"{ENV}KAFKA__SECURITY__SSL_CHECK_HOSTNAME"]["value"] == "false"
        cafile = by_name[f"{ENV}KAFKA__SECURITY__SSL_CAFILE"]["value"]
        mounted = {m["mountPath"] for m in container["volumeMounts"]}
        assert {cafile.rpartition("/")[0], file.rpartition("/")[0]} <= mounted
    assert found.volumes["kafka-sasl"]["secret"]["secretName"] == "kafka-user"
    assert found.volumes["kafka-ca"]["secret"]["secretName"] == "kafka-ca"


def test_mutual_tls_mounts_certificate_and_key() -> None:
    found = render("mutual-tls")
    assert found.env[f"{ENV}KAFKA__SECURITY__SSL_CERTFILE"].endswith("/kafka-client/tls.crt")
    assert found.env[f"{ENV}KAFKA__SECURITY__SSL_KEYFILE"].endswith("/kafka-client/tls.key")
    assert found.volumes["kafka-client"]["secret"]["secretName"] == "stream-guard-tls"
    assert found.env[f"{ENV}KAFKA__SECURITY__SSL_KEY_PASSWORD_FILE"].endswith(
        "/kafka-client/password"
    )


def test_a_pattern_stands_instead_of_topics_and_the_test_is_told_its_topic() -> None:
    found = render("topic-pattern")
    assert found.env[f"{ENV}KAFKA__TOPIC_PATTERN"] == r"posts\..*"
    assert f"{ENV}KAFKA__TOPICS" not in found.env
    (test,) = found.of("Pod")
    assert test["spec"]["containers"][0]["args"] == ["round-trip", "posts.test", "--timeout", "60"]


def test_helm_test_sends_a_post_to_the_first_topic_by_the_program_itself() -> None:
    found = render("sasl-scram")
    (test,) = found.of("Pod")
    assert test["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (container,) = test["spec"]["containers"]
    assert container["command"] == ["stream-guard"]
    assert container["args"] == ["round-trip", "posts", "--timeout", "300"]
    assert container["image"] == found.container["image"]
    assert not render("on-delete").of("Pod")


def test_settings_of_every_kind_arrive_as_they_were_written() -> None:
    env = render("settings").env
    assert env[f"{ENV}KAFKA__FETCH_MAX_BYTES"] == "134217728"
    assert env[f"{ENV}ENGINE__KV_CACHE_MEMORY_BYTES"] == "40000000000"
    assert env[f"{ENV}TELEMETRY__TRACE_RATIO"] == "0.001"
    assert env[f"{ENV}POST__ID"] == "/message/id"
    assert json.loads(env[f"{ENV}ENGINE__EXTRA"]) == {
        "enable_prefix_caching": True,
        "compilation_config": {"level": 3},
    }
    assert render("settings").one("Service")["spec"]["ports"][0]["port"] == 9400


# Around it


def test_the_disruption_budget_lets_one_pod_go_and_never_waits_for_a_broken_one() -> None:
    spec = render("minimal").one("PodDisruptionBudget")["spec"]
    assert spec["maxUnavailable"] == 1
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    other = render("disruption-budget").one("PodDisruptionBudget")["spec"]
    assert other["minAvailable"] == 2
    assert "maxUnavailable" not in other
    assert not render("on-delete").of("PodDisruptionBudget")


def test_the_network_policy_opens_what_is_needed_and_nothing_else() -> None:
    spec = render("network-policy").one("NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    (ingress,) = spec["ingress"]
    assert ingress["ports"] == [{"port": "http", "protocol": "TCP"}]
    assert ingress["from"][0]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "monitoring"
    }
    ports = [[port["port"] for port in rule["ports"]] for rule in spec["egress"]]
    # DNS, both brokers, the hub, the collector, and what was added.
    assert ports == [[53, 53], [9092, 19092], [443], [4317], [8443]]
    assert "to" in spec["egress"][1]
    selector = spec["podSelector"]["matchLabels"]
    (test,) = render("network-policy").of("Pod")
    assert selector.items() <= test["metadata"]["labels"].items(), "the test needs Kafka, too"


def test_the_network_policy_opens_the_hub_only_where_something_is_downloaded() -> None:
    found = render_with({"networkPolicy.enabled": True}, "host-path").one("NetworkPolicy")
    assert [[p["port"] for p in rule["ports"]] for rule in found["spec"]["egress"]] == [
        [53, 53],
        [9092],
    ]
    ssh = render_with({"networkPolicy.enabled": True}, "policies-git-ssh").one("NetworkPolicy")
    assert [22] in [[p["port"] for p in rule["ports"]] for rule in ssh["spec"]["egress"]]


def test_metrics_are_read_from_the_port_that_the_program_listens_on() -> None:
    found = render("monitoring")
    (endpoint,) = found.one("PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == found.container["ports"][0]["name"] == "http"
    assert endpoint["path"] == "/metrics"
    assert found.one("PodMonitor")["metadata"]["labels"]["release"] == "prometheus"


def test_alerts_are_narrowed_to_the_release_and_can_be_left_out() -> None:
    rules = [
        rule
        for group in render("monitoring").one("PrometheusRule")["spec"]["groups"]
        for rule in group["rules"]
    ]
    names = [rule["alert"] for rule in rules]
    assert "StreamGuardIdle" not in names
    assert "MyOwn" in names
    for rule in rules:
        if rule["alert"] != "MyOwn":
            assert 'job=~".+"' not in rule["expr"]
            # The review server is no pod of the release.
            review = "stream_guard_review_" in rule["expr"]
            job = "" if review else ',job="guard"'
            assert f'namespace="{NAMESPACE}"{job}' in rule["expr"]
            assert ("job=" in rule["expr"]) != review


def test_no_alert_for_no_replica_where_there_may_be_none() -> None:
    groups = render("autoscaling").one("PrometheusRule")["spec"]["groups"]
    names = [rule["alert"] for group in groups for rule in group["rules"]]
    assert names
    assert "StreamGuardDown" not in names


def test_the_dashboard_is_found_by_grafanas_sidecar() -> None:
    found = [
        m
        for m in render("monitoring").of("ConfigMap")
        if m["metadata"]["name"].endswith("-dashboard")
    ]
    (dashboard,) = found
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["metadata"]["annotations"] == {"grafana_folder": "Trust"}
    assert json.loads(dashboard["data"]["stream-guard.json"])["title"] == "Stream Guard"


def test_keda_scales_by_each_topics_lag_up_to_the_number_of_partitions() -> None:
    found = render("autoscaling")
    spec = found.one("ScaledObject")["spec"]
    assert spec["maxReplicaCount"] == 12
    assert spec["minReplicaCount"] == 0
    assert spec["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "name": found.one("StatefulSet")["metadata"]["name"],
    }
    assert "replicas" not in found.one("StatefulSet")["spec"], "an upgrade would reset KEDA's count"
    metadata = [trigger["metadata"] for trigger in spec["triggers"]]
    assert [m["topic"] for m in metadata] == ["posts", "forum.posts"]
    assert all(m["lagThreshold"] == "5000" for m in metadata)
    assert all(m["allowIdleConsumers"] == "false" for m in metadata)
    assert all(m["consumerGroup"] == found.env[f"{ENV}KAFKA__GROUP_ID"] for m in metadata)


def test_keda_reads_the_lag_with_the_same_secrets() -> None:
    found = render("autoscaling-secured")
    (trigger,) = found.one("ScaledObject")["spec"]["triggers"]
    assert "topic" not in trigger["metadata"], "all that the group reads"
    assert trigger["metadata"]["sasl"] == "scram_sha256"
    assert trigger["metadata"]["tls"] == "enable"
    made = found.one("TriggerAuthentication")
    assert trigger["authenticationRef"]["name"] == made["metadata"]["name"]
    targets = {t["parameter"]: (t["name"], t["key"]) for t in made["spec"]["secretTargetRef"]}
    assert targets == {
        "username": ("kafka-user", "username"),
        "password": ("kafka-user", "password"),
        "ca": ("kafka-ca", "ca.crt"),
        "cert": ("kafka-client", "tls.crt"),
        "key": ("kafka-client", "tls.key"),
        "keyPassword": ("kafka-client", "password"),
    }
    assert found.one("ScaledObject")["spec"]["maxReplicaCount"] == 6


def test_account_and_image_can_be_ones_own() -> None:
    found = render("service-account")
    assert not found.of("ServiceAccount")
    assert found.pod["serviceAccountName"] == "moderation"
    assert found.container["image"].startswith("registry.example/stream-guard@sha256:")
    assert found.pod["imagePullSecrets"] == [{"name": "registry"}]


def test_what_the_chart_does_not_know_can_be_added() -> None:
    found = render("extras")
    assert found.env["NCCL_DEBUG"] == "WARN"
    assert found.container["envFrom"] == [{"secretRef": {"name": "proxy"}}]
    assert found.mounts["/opt/hooks"]["name"] == "hooks"
    added = [m for m in found.of("ConfigMap") if m["metadata"]["name"] == "guard-hooks"]
    assert added, "the name's template expression was evaluated"
    labels = found.one("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert labels["team"] == "trust"
    assert labels["cost-centre"] == "42"


# Presets

GPUS = {"20b-h100": (1, 80), "20b-a100": (1, 40), "20b-l40s": (1, 48), "120b-2xh100": (2, 80)}
# Weights in GB; KV bytes of a token: layers x KV heads x size of a head x key and value x 2 bytes.
WEIGHTS_GB = {"20b": 14, "120b": 63}
TOKEN_BYTES = {"20b": 24 * 8 * 64 * 2 * 2, "120b": 36 * 8 * 64 * 2 * 2}
OWN_TOKENS = 800  # of a usual request: its post and its answer, beside the policy that all share


CONTEXT_TOKENS = 131_072
"""Of gpt-oss-safeguard, by its model card."""


@pytest.mark.parametrize("preset", GPUS)
def test_a_preset_fits_its_cards(preset: str) -> None:
    found = render(f"preset/{preset}")
    size = preset.partition("-")[0]
    count, card_gb = GPUS[preset]
    env = found.env
    assert found.container["resources"]["limits"]["nvidia.com/gpu"] == str(count)
    assert int(env.get(f"{ENV}ENGINE__TENSOR_PARALLEL_SIZE", "1")) == count
    assert env[f"{ENV}ENGINE__MODEL"] == f"openai/gpt-oss-safeguard-{size}"
    taken_gb = card_gb * float(env[f"{ENV}ENGINE__GPU_MEMORY_UTILIZATION"])
    cache_gb = count * (taken_gb - 7) - WEIGHTS_GB[size]
    tokens = cache_gb * 1e9 / TOKEN_BYTES[size]
    assert tokens >= int(env[f"{ENV}ENGINE__MAX_NUM_SEQS"]) * OWN_TOKENS
    # No preset bounds the context, so the whole of it has to fit.
    assert f"{ENV}ENGINE__MAX_MODEL_LEN" not in env
    assert tokens >= CONTEXT_TOKENS
    # The weights pass through the node's memory on their way.
    memory_gi = int(found.container["resources"]["limits"]["memory"].removesuffix("Gi"))
    assert memory_gi > WEIGHTS_GB[size] * 1.5


def test_a_hooks_pod_outlives_its_success_so_that_its_log_can_be_read() -> None:
    for name in CASES:
        for found in render(name).objects:
            annotations = found["metadata"].get("annotations", {})
            if "helm.sh/hook" in annotations:
                policy = annotations["helm.sh/hook-delete-policy"].split(",")
                assert policy == ["before-hook-creation"], name
