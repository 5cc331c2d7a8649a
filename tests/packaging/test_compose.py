"""docker-compose.yml, as text: its schema, and that all it names is there and accepted by the program."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import validators
from typer.testing import CliRunner

from stream_guard.cli.main import app
from stream_guard.console.security.tokens import tokens_of
from stream_guard.records.post import PostParser
from stream_guard.settings import Settings
from stream_guard.testing.broker.java import KAFKA_VERSION

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
VERSIONS = dict(
    line.split("=", 1)
    for line in (ROOT / ".env").read_text().splitlines()
    if line and not line.startswith("#")
)
GUARDS = ("stream-guard", "stream-guard-gpu")
_SCHEMA = json.loads((Path(__file__).parent / "data/compose-spec.json").read_text())
CHECKER = validators.validator_for(_SCHEMA)(_SCHEMA)


def test_the_file_fits_the_schema_of_compose() -> None:
    CHECKER.validate(COMPOSE)
    broken = copy.deepcopy(COMPOSE)
    broken["services"]["kafka"]["mem_limits"] = "1g"
    assert not CHECKER.is_valid(broken)


def test_every_version_is_in_the_env_file_and_used() -> None:
    named = set(re.findall(r"\$\{(\w+):\?", TEXT))
    assert named == set(VERSIONS)
    assert VERSIONS["KAFKA_VERSION"] == KAFKA_VERSION, "the broker of the tests is another"
    for name, service in SERVICES.items():
        image = service["image"]
        assert image.startswith("stream-guard:") or re.search(r":\$\{\w+_VERSION:\?", image), name
        assert "latest" not in image


def test_every_service_has_a_memory_limit_and_known_dependencies() -> None:
    for name, service in SERVICES.items():
        assert "mem_limit" in service, name
        for other, how in service.get("depends_on", {}).items():
            needed = SERVICES[other]
            if how["condition"] == "service_healthy":
                assert "healthcheck" in needed, (
                    f"{name} waits for {other}, which has no health check"
                )
            if how["condition"] == "service_completed_successfully":
                assert needed.get("restart") == "no", f"{name} waits for {other} to end"


def test_every_file_is_there_and_every_volume_is_declared() -> None:
    count = 0
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            count += 1
            if source.startswith("./"):
                assert (ROOT / source).exists(), f"{name}: {source}"
                assert volume.endswith(":ro"), f"{name}: {source} may be written"
            else:
                assert source in COMPOSE["volumes"], f"{name}: {source}"
        if "build" in service:
            assert f" AS {service['build']['target']}" in (ROOT / "Dockerfile").read_text()
    assert count > 8


def published(name: str) -> list[tuple[str, str, str]]:
    """Return (address, host port, container port) of each port that a service publishes."""
    parts = [port.rpartition(":") for port in SERVICES[name].get("ports", ())]
    return [(*outside.rpartition(":")[::2], inside) for outside, _, inside in parts]


def test_every_port_is_open_to_this_machine_alone_and_used_once() -> None:
    ports = [port for name in SERVICES for port in published(name)]
    assert len(ports) > 6
    assert {address for address, _, _ in ports} == {"127.0.0.1"}
    hosts = [host for _, host, _ in ports]
    assert len(hosts) == len(set(hosts))


def test_kafka_writes_into_its_volume() -> None:
    kafka = SERVICES["kafka"]
    folders = [volume.split(":")[1] for volume in kafka["volumes"]]
    assert kafka["environment"]["KAFKA_LOG_DIRS"] in folders


@pytest.fixture(params=GUARDS)
def settings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for key, value in SERVICES[request.param]["environment"].items():
        if key.startswith("STREAM_GUARD_"):
            monkeypatch.setenv(key, value)
    return Settings()


def test_the_settings_are_accepted_and_agree_with_the_other_services(settings: Settings) -> None:
    host, port = settings.kafka.bootstrap_servers.split(":")
    assert f"INSIDE://{host}:{port}" in SERVICES[host]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    made = SERVICES["topics"]["command"][0]
    for topic in (*settings.kafka.topics, *settings.kafka.written_topics):
        assert topic in made, f"nobody makes {topic}"
    assert settings.telemetry.otlp_endpoint == "http://otel-collector:4317"
    collector = yaml.safe_load((ROOT / "deploy/compose/otel-collector.yaml").read_text())
    assert collector["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].endswith(":4317")
    for pipeline in collector["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(collector[kind])


@pytest.mark.parametrize("name", GUARDS)
def test_the_container_is_given_time_to_drain_and_nothing_it_does_not_need(name: str) -> None:
    service, settings = SERVICES[name], Settings(kafka={"topics": ("posts",)})  # type: ignore[arg-type]
    grace_s = int(service["stop_grace_period"].removesuffix("s"))
    assert grace_s > settings.delivery.drain_timeout_s + 3 * settings.delivery.stop_timeout_s
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    ((_, _, port),) = published(name)
    assert int(port) == settings.http.port


def test_prometheus_scrapes_what_is_there_and_reads_rules() -> None:
    config = yaml.safe_load((ROOT / "deploy/compose/prometheus.yaml").read_text())
    (job,) = config["scrape_configs"]
    for target in job["static_configs"][0]["targets"]:
        host, port = target.split(":")
        assert SERVICES[host]["ports"][0].endswith(f":{port}")
    mounted = " ".join(SERVICES["prometheus"]["volumes"])
    assert "helm/stream-guard/rules:/etc/prometheus/rules:" in mounted
    assert config["rule_files"] == ["/etc/prometheus/rules/*.yaml"]


def test_grafana_is_provisioned_from_what_is_mounted() -> None:
    folder = ROOT / "deploy/compose/grafana"
    sources = yaml.safe_load((folder / "datasources.yaml").read_text())["datasources"]
    for source in sources:
        host, port = source["url"].removeprefix("http://").split(":")
        assert any(p.endswith(f":{port}") for p in SERVICES[host]["ports"])
    (provider,) = yaml.safe_load((folder / "dashboards.yaml").read_text())["providers"]
    path = provider["options"]["path"]
    mount = next(v for v in SERVICES["grafana"]["volumes"] if f":{path}:" in v)
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    dashboard = ROOT / mount.split(":")[0] / Path(home).name
    uids = set(re.findall(r'"datasource":\s*\{[^}]*"uid":\s*"([^"]+)"', dashboard.read_text()))
    assert {u for u in uids if not u.startswith("$")} <= {s["uid"] for s in sources} | {
        "-- Grafana --"
    }


def test_the_producers_command_is_one_of_ours_and_its_posts_are_posts() -> None:
    command = SERVICES["producer"]["command"][0]
    words = re.search(r"stream-guard (produce) (\S+) (\S+)", command)
    assert words
    assert any(v.split(":")[1] == words[2] for v in SERVICES["producer"]["volumes"])
    assert words[3] in SERVICES["stream-guard"]["environment"]["STREAM_GUARD_KAFKA__TOPICS"]
    shown = CliRunner().invoke(app, [words[1], "--help"])
    assert shown.exit_code == 0
    lines = (ROOT / "deploy/compose/posts.jsonl").read_bytes().splitlines()
    parser = PostParser(Settings(kafka={"topics": ("posts",)}).post)  # type: ignore[arg-type]
    assert len({parser.parse(line, []).id for line in lines}) == len(lines) > 10


def test_the_console_is_behind_one_switch_and_asks_the_service_how_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console = SERVICES["console"]
    assert console["profiles"] == ["console"]
    assert not [other for other in SERVICES.values() if "console" in other.get("depends_on", {})]
    for key, value in console["environment"].items():
        monkeypatch.setenv(key, value)
    settings = Settings()
    assert settings.console.metrics_urls == [
        f"http://stream-guard:{published('stream-guard')[0][2]}/metrics"
    ]
    assert published("console") == [("127.0.0.1", "8095", str(settings.console.port))]
    assert settings.console.public_url == "http://localhost:8095"
    assert console["healthcheck"]["test"][-1] == str(settings.console.port)
    assert (console["read_only"], console["cap_drop"]) == (True, ["ALL"])
    for name in ("KAFKA__REVIEW_TOPIC", "DECISIONS__ENABLED"):
        service = SERVICES["stream-guard"]["environment"]
        assert service[f"STREAM_GUARD_{name}"] == console["environment"][f"STREAM_GUARD_{name}"]


def test_the_consoles_command_makes_a_token_that_signs_in(tmp_path: Path) -> None:
    console = SERVICES["console"]
    file = console["environment"]["STREAM_GUARD_CONSOLE__TOKENS_FILE"]
    assert file.startswith(f"{console['tmpfs'][0]}/"), "the root is read-only"
    (script,) = console["command"]
    program = tmp_path / "stream-guard"
    program.write_text('#!/bin/sh\necho "started $1"\n')
    program.chmod(0o755)
    made = tmp_path / "tokens"
    done = subprocess.run(
        [*console["entrypoint"], script.replace("$$", "$").replace(file, str(made))],
        env={"PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    first, last = done.stdout.splitlines()
    assert last == "started console"
    assert made.stat().st_mode & 0o077 == 0
    owner_of = tokens_of(Settings(console={"tokens_file": made}).console)  # type: ignore[arg-type]
    assert owner_of is not None
    person = owner_of(first.split()[-1])
    assert person is not None
    assert person.role == "lead"
