"""The console's own objects: off by default, one pod, and the ways in and out that it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.helm.chart import CASES, NAMESPACE, Object, Rendered, render, render_with
from tests.helm.test_every_values_file import environment_of, load

if TYPE_CHECKING:
    from stream_guard.settings import Settings

KINDS = ("Deployment", "Service", "ServiceAccount", "NetworkPolicy")


def pod_of(rendered: Rendered) -> Object:
    spec: Object = rendered.one("Deployment", "console")["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the program makes of the console's variables."""
    (container,) = pod_of(render("console"))["containers"]
    return load(monkeypatch, environment_of(container))


def test_it_is_off_unless_it_is_asked_for() -> None:
    for case in CASES:
        of_console = [
            found
            for found in render(case).objects
            if found["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "console"
        ]
        assert bool(of_console) == (case == "console"), case


def test_the_service_is_as_it_was() -> None:
    without = render_with({"console": {"enabled": False}}, "console")
    for kind in ("StatefulSet", "Service", "ServiceAccount"):
        assert render("console").one(kind) == without.one(kind)


def test_it_has_objects_of_its_own_that_find_its_pod_and_no_replica() -> None:
    rendered = render("console")
    labels = rendered.one("Deployment", "console")["spec"]["template"]["metadata"]["labels"]
    replica = rendered.one("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert {rendered.one(kind, "console")["metadata"]["name"] for kind in KINDS} == {
        "guard-stream-guard-console"
    }
    for selector in (
        rendered.one("Deployment", "console")["spec"]["selector"]["matchLabels"],
        rendered.one("Service", "console")["spec"]["selector"],
        rendered.one("NetworkPolicy", "console")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
        assert not selector.items() <= replica.items()
    assert not rendered.one("Service")["spec"]["selector"].items() <= labels.items()
    assert pod_of(rendered)["serviceAccountName"] == "guard-stream-guard-console"


def test_the_pod_meets_the_restricted_standard_and_can_be_asked_how_it_is() -> None:
    rendered = render("console")
    pod = pod_of(rendered)
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {"requests", "limits"} <= container["resources"].keys()
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "pages"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "pages"}
    (port,) = rendered.one("Service", "console")["spec"]["ports"]
    assert port["targetPort"] == container["ports"][0]["name"] == "pages"
    deployment = rendered.one("Deployment", "console")["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})


@pytest.mark.parametrize("case", CASES)
def test_every_mount_has_its_volume_wherever_policies_come_from(case: str) -> None:
    on = {"enabled": True, "publicUrl": "http://localhost", "tokensSecret": {"name": "people"}}
    pod = pod_of(render_with({"console": on}, case))
    containers = [*pod["containers"], *pod.get("initContainers", [])]
    used = {mount["name"] for container in containers for mount in container["volumeMounts"]}
    assert used == {volume["name"] for volume in pod["volumes"]}


def test_the_program_takes_every_variable(settings: Settings) -> None:
    console = settings.console
    (container,) = pod_of(render("console"))["containers"]
    assert container["ports"][0]["containerPort"] == console.port
    assert console.host == "0.0.0.0"  # noqa: S104 - as the Service needs it
    assert console.public_url == "https://console.example.org"
    assert (console.review_break_items, console.commit) == (40, False)
    assert console.review_exposure_max == {"*": {"*": 200}}
    assert console.oidc.issuer == "https://login.example.org/realms/trust"
    assert console.oidc.roles == {"trust-leads": "lead"}
    assert str(console.oidc.client_secret_file) == "/etc/stream-guard/console-oidc/client-secret"
    assert settings.kafka.review_topic == "stream-guard.review"
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(console.tokens_file) == "/etc/stream-guard/console-tokens/tokens"
    assert str(console.tokens_file.parent) in mounts  # type: ignore[union-attr]
    (database,) = [v for v in container["env"] if v["name"] == "STREAM_GUARD_REVIEW__DATABASE"]
    assert database["valueFrom"] == {"secretKeyRef": {"name": "reviews", "key": "url"}}


def test_one_name_stands_for_the_metrics_of_all_replicas(settings: Settings) -> None:
    rendered = render("console")
    service = rendered.one("Service")
    (url,) = settings.console.metrics_urls
    port = rendered.container["ports"][0]["containerPort"]
    assert url == f"http://{service['metadata']['name']}.{NAMESPACE}.svc:{port}/metrics"
    # A headless Service's name has the address of every pod, and those have this port open.
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True


def test_its_policy_lets_people_in_and_it_out_to_brokers_and_replicas() -> None:
    rendered = render("console")
    spec = rendered.one("NetworkPolicy", "console")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    (ingress,) = spec["ingress"]
    assert ingress["ports"] == [{"port": "pages", "protocol": "TCP"}]
    assert list(ingress["from"][0]) == ["namespaceSelector"]
    ports = [[port["port"] for port in rule["ports"]] for rule in spec["egress"]]
    assert ports == [[53, 53], [9092], [9400], [443], [5432]]
    replica = rendered.one("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    to = spec["egress"][2]["to"][0]["podSelector"]["matchLabels"]
    assert to.items() <= replica.items()


@pytest.mark.parametrize(
    ("issuer", "port"),
    [
        ("https://login.example.org:8443/x", 8443),
        ("http://localhost", 80),
        ("https://a.b/c", 443),
        ("https://a.b/realms/x:9/y", 443),
    ],
)
def test_the_issuers_port_is_open(issuer: str, port: int) -> None:
    oidc = {"issuer": issuer, "roles": {"a": "lead"}}
    policy = render_with({"console.settings.oidc": oidc}, "console")
    rules = policy.one("NetworkPolicy", "console")["spec"]["egress"]
    assert [{"port": port, "protocol": "TCP"}] in [rule["ports"] for rule in rules]


def test_the_replicas_policy_lets_the_console_in_and_leaves_it_to_its_own() -> None:
    rendered = render("console")
    spec = rendered.one("NetworkPolicy")["spec"]
    (ingress,) = spec["ingress"]
    labels = rendered.one("Deployment", "console")["spec"]["template"]["metadata"]["labels"]
    console = ingress["from"][1]["podSelector"]["matchLabels"]
    assert console.items() <= labels.items()
    assert spec["podSelector"]["matchExpressions"] == [
        {"key": "app.kubernetes.io/component", "operator": "NotIn", "values": ["console"]}
    ]
    open_to_all = render_with({"networkPolicy.scrapeFrom": []}, "console").one("NetworkPolicy")
    assert open_to_all["spec"]["ingress"][0]["from"] == [{"podSelector": {}}]
