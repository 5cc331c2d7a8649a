"""What ``doctor`` says of topics and of the machine: each fault found, named, and with a remedy."""

from __future__ import annotations

import resource
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from stream_guard.core.errors import BrokerError, EngineError, SettingsError, StreamGuardError
from stream_guard.kafka.cluster import ClusterState
from stream_guard.policies.lanes import Lane, LaneLimits, Lanes, Quota, TenantShare
from stream_guard.policies.routing import Condition
from stream_guard.service.diagnostics import doctor, host
from stream_guard.service.diagnostics.checks import CheckResult, _routes
from stream_guard.service.diagnostics.doctor import _roles, _without_route, look_at
from stream_guard.service.diagnostics.lane_advice import advise_lanes
from stream_guard.service.diagnostics.running import compilation
from stream_guard.service.diagnostics.topic_advice import Role, Topic, advise
from stream_guard.service.policies import read_policies
from stream_guard.settings import (
    ActionLimit,
    ActionsSettings,
    DeliverySettings,
    EngineSettings,
    HttpSettings,
    KafkaSettings,
    PoliciesSettings,
    Settings,
)

if TYPE_CHECKING:
    from pathlib import Path

WELL = {
    "cleanup.policy": "delete",
    "retention.ms": "604800000",
    "retention.bytes": "-1",
    "min.insync.replicas": "2",
    "unclean.leader.election.enable": "false",
    "max.message.bytes": "1048588",
}


def topic(*, replicas: int = 3, behind: int = 0, leaderless: int = 0, **configs: str) -> Topic:
    changed = WELL | {name.replace("_", "."): value for name, value in configs.items()}
    return Topic("t", 12, replicas, behind, leaderless, changed)


@pytest.mark.parametrize("role", ["input", "verdicts", "dead letters", "shadows", "reasoning"])
def test_of_a_topic_that_is_set_well_there_is_one_good_line(role: Role) -> None:
    (line,) = advise(topic(), role, 900_000)
    assert (line.level, line.remedy) == ("ok", "")


@pytest.mark.parametrize(
    ("state", "role", "level", "what"),
    [
        (topic(replicas=1), "input", "warning", "one replica"),
        (topic(min_insync_replicas="1"), "verdicts", "warning", "min.insync.replicas is 1"),
        (topic(min_insync_replicas="3"), "verdicts", "warning", "one missing broker stops all"),
        (topic(min_insync_replicas="4"), "verdicts", "error", "no write is ever acknowledged"),
        (topic(unclean_leader_election_enable="true"), "input", "warning", "unclean"),
        (topic(leaderless=2), "input", "error", "2 partitions without a leader"),
        (topic(behind=3), "input", "warning", "3 partitions with a replica"),
        (topic(cleanup_policy="compact"), "input", "warning", "before it is judged"),
        (topic(cleanup_policy="compact,delete"), "verdicts", "warning", "another post"),
        (topic(cleanup_policy="compact"), "dead letters", "warning", "two dead letters"),
        (topic(retention_ms="3600000"), "input", "warning", "for 1 h"),
        (topic(retention_ms="86400000"), "dead letters", "warning", "for 24 h"),
        (topic(retention_bytes="1000000"), "input", "warning", "retention.bytes is 1000000"),
        (topic(), "archive", "warning", "can no longer be explained"),
        (
            topic(cleanup_policy="compact,delete"),
            "archive",
            "warning",
            "can no longer be explained",
        ),
        (topic(retention_ms="-1"), "breaker", "error", "counts that still hold are deleted"),
        (
            topic(cleanup_policy="compact,delete", retention_ms="86400000"),
            "breaker",
            "warning",
            "retention.ms keeps 1 days",
        ),
        (topic(max_message_bytes="100000"), "verdicts", "error", "stops the service"),
    ],
)
def test_what_is_set_badly_is_told_with_a_remedy(
    state: Topic, role: Role, level: str, what: str
) -> None:
    (line,) = advise(state, role, 0 if role == "input" else 900_000)
    assert line.level == level
    assert what in line.detail
    assert len(line.remedy) > 20


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (SettingsError("a setting is odd"), "correct what this line names"),
        (BrokerError("it is away"), "check kafka.bootstrap_servers"),
        (EngineError("it died"), "engine.model = demo"),
        (StreamGuardError("it is odd"), "run the command again"),
        (BrokerError("it is away; start it"), "start it"),
    ],
)
def test_every_error_has_a_remedy(
    error: StreamGuardError, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = [CheckResult("part", error=error)]
    monkeypatch.setattr(doctor, "run_checks", lambda _: iter(failed))
    monkeypatch.setenv("STREAM_GUARD_KAFKO__X", "1")  # nothing else can be examined
    (found,) = doctor.Doctor(None).run()
    assert (found.level, found.detail) == ("error", str(error).partition(";")[0])
    assert remedy in found.remedy


def test_a_topic_that_is_kept_for_ever_and_only_compacted_has_no_retention() -> None:
    state = topic(cleanup_policy="compact", retention_ms="1", retention_bytes="1")
    assert len(advise(state, "verdicts", 900_000)) == 1


def test_an_archive_is_to_be_compacted() -> None:
    (line,) = advise(topic(cleanup_policy="compact"), "archive", 900_000)
    assert line.level == "ok"


def test_every_topic_of_the_settings_has_its_role() -> None:
    kafka = KafkaSettings(topics=("posts",), shadow_topic="s", reasoning_topic="r")
    limits = ActionsSettings(limits=(ActionLimit(actions_max=1),))
    settings = Settings(kafka=kafka, policies=PoliciesSettings(archive="topic"), actions=limits)
    roles = _roles(settings, {"posts"})
    assert set(roles) == {"posts", *kafka.own_topics} - {kafka.decision_topic}
    missing = list(look_at(settings, ClusterState(3, {}, 1.0), roles))
    told = {one.name for one in missing if one.level == "error"}
    assert told == {f"topic {name}" for name in kafka.written_topics}


def test_a_topic_that_the_pattern_catches_and_nobody_judges_is_named(tmp_path: Path) -> None:
    (tmp_path / "spam").mkdir()
    (tmp_path / "spam" / "policy.md").write_text("Answer `VIOLATES` or `SAFE`. Judge spam.")
    (tmp_path / "routes.yaml").write_text("topics:\n  posts.known: [spam]\n")
    settings = Settings(
        kafka=KafkaSettings(topic_pattern="posts.*"), policies=PoliciesSettings(path=tmp_path)
    )
    (found,) = _without_route(settings, {"posts.known", "posts.new"})
    assert (found.name, found.level) == ("topic posts.new", "warning")
    assert "not read" in found.detail
    assert "add posts.new to" in found.remedy
    assert "routes.yaml" in found.remedy
    assert not list(_without_route(settings, {"posts.known"}))
    told = _routes(read_policies(settings), {"posts.known", "posts.new"}, settings)
    assert told == "not read, because no policy judges them: posts.new"


def test_settings_that_nobody_tells_are_taken_for_kafkas_own() -> None:
    (line,) = advise(Topic("t", 1, 3, 0, 0, {}), "input")
    assert "min.insync.replicas is 1" in line.detail


def test_brokers_that_take_long_are_told_of() -> None:
    found = list(look_at(Settings(), ClusterState(3, {}, 400.0), {}))
    assert [(f.name, f.level) for f in found] == [("brokers", "warning")]


# The machine


class Driver:
    """Stands in for NVIDIA's binding: cards of (name, total MiB, free MiB), or no driver at all."""

    class NVMLError(Exception):
        """As the binding's own."""

    def __init__(self, *cards: tuple[str, int, int], missing: bool = False) -> None:
        self.cards = cards
        self.missing = missing
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802 - the binding's own names
        if self.missing:
            raise self.NVMLError("NVML Shared Library Not Found")
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "570.1"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return self.cards[handle][0]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        _, total, free = self.cards[handle]
        return SimpleNamespace(total=total << 20, free=free << 20)


@pytest.fixture
def gpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that vLLM is built for GPUs."""
    monkeypatch.setattr("stream_guard.judging.engine.arguments.is_cpu_build", lambda: False)


H100 = ("NVIDIA H100", 81_559, 81_000)


@pytest.mark.usefixtures("gpu_build")
@pytest.mark.parametrize(
    ("driver", "parallel", "levels", "what"),
    [
        (Driver(H100), 1, ["ok"], "NVIDIA H100, driver 570.1, 81000 of 81559 MiB free"),
        (Driver(("NVIDIA H100", 81_559, 9_000)), 1, ["error"], "gpu_memory_utilization needs"),
        (Driver(H100), 2, ["error"], "1 of 2 GPUs"),
        (Driver(), 1, ["error"], "0 of 1 GPUs"),
        (Driver(H100, H100, H100), 2, ["ok", "ok"], "81000 of 81559 MiB"),
        (Driver(missing=True), 1, ["error"], "driver does not answer: NVML Shared Library"),
    ],
)
def test_gpus_are_counted_and_their_memory_is_compared(
    driver: Driver, parallel: int, levels: list[str], what: str
) -> None:
    found = host.gpus(EngineSettings(tensor_parallel_size=parallel), driver)
    assert [f.level for f in found] == levels
    assert what in found[0].detail
    assert all(bool(f.remedy) == (f.level != "ok") for f in found)
    assert driver.open == 0


def test_the_stand_in_has_the_names_of_the_real_binding() -> None:
    import pynvml

    names = [name for name in vars(Driver) if name.startswith("nvml")]
    assert len(names) == 7
    assert all(hasattr(pynvml, name) for name in [*names, "NVMLError"])


@pytest.mark.usefixtures("gpu_build")
def test_the_real_binding_answers_with_or_without_a_driver() -> None:
    assert host.gpus(EngineSettings())[0].name == "GPU"


def test_a_judge_without_a_model_needs_no_gpu() -> None:
    assert host.gpus(EngineSettings(kind="scripted"))[0].level == "ok"


def test_a_record_of_the_future_is_a_clock_that_is_wrong() -> None:
    found = host.clock(int((time.time() + 60) * 1_000))
    assert found.level == "warning"
    assert "60 s from now" in found.detail or "59 s from now" in found.detail


@pytest.mark.parametrize(("state", "level"), [(0, "ok"), (5, "warning"), (None, "ok")])
def test_the_kernel_is_asked_whether_anybody_keeps_the_time(
    monkeypatch: pytest.MonkeyPatch, state: int | None, level: str
) -> None:
    monkeypatch.setattr(host, "_kernel_clock_state", lambda: state)
    assert host.clock().level == level


def test_the_kernel_answers() -> None:
    assert host._kernel_clock_state() in range(-1, 6)


def test_too_few_open_files_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def limits(soft: int) -> Any:  # noqa: ANN401 - a pair
        return lambda _: (soft, 1 << 20)

    monkeypatch.setattr(resource, "getrlimit", limits(1_024))
    assert host.limits(Settings()).level == "warning"
    monkeypatch.setattr(resource, "getrlimit", limits(4_200))
    assert host.limits(Settings()).level == "ok"
    # A producer for each partition takes more.
    exactly = Settings(delivery=DeliverySettings(mode="exactly_once"))
    assert host.limits(exactly).level == "warning"
    monkeypatch.setattr(resource, "getrlimit", limits(resource.RLIM_INFINITY))
    assert host.limits(exactly).detail == "no limit"


def test_shared_memory_that_is_too_small_or_missing_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert host.shared_memory(EngineSettings(), tmp_path / "none").level == "warning"
    monkeypatch.setattr(host, "_SHARED_BYTES_MIN", 1 << 60)
    found = host.shared_memory(EngineSettings(), tmp_path)
    assert (found.level, "shm-size" in found.remedy) == ("warning", True)
    monkeypatch.setattr(host, "_SHARED_BYTES_MIN", 1)
    assert host.shared_memory(EngineSettings(), tmp_path).level == "ok"


class _Page(BaseHTTPRequestHandler):
    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ('{kind="kernel"} 0\nNAME{kind="graph"} 0\n', [("ok", "nothing was compiled")]),
        ('{kind="kernel"} 12\nNAME{kind="graph"} 1\n', [("warning", "12 kernels and 1 graph")]),
        (None, []),
    ],
)
def test_compilation_while_serving_is_read_from_the_running_service(
    page: str | None, found: list[tuple[str, str]]
) -> None:
    name = "stream_guard_engine_compilations_total"
    body = "" if page is None else f"# TYPE {name} counter\n{name}{page.replace('NAME', name)}"
    handler = type("Page", (_Page,), {"body": body.encode()})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        lines = [*compilation(HttpSettings(host="0.0.0.0", port=server.server_port))]  # noqa: S104 - not bound
        server.shutdown()
        thread.join()
    assert [
        (line.level, part in line.detail) for line, (_, part) in zip(lines, found, strict=True)
    ] == [(level, True) for level, _ in found]
    assert all(line.remedy for line in lines if line.level == "warning")


def test_where_no_service_answers_nothing_is_said_of_compilation() -> None:
    with HTTPServer(("127.0.0.1", 0), _Page) as server:
        port = server.server_port
    assert [*compilation(HttpSettings(port=port))] == []
    assert [*compilation(HttpSettings(port=0))] == []


def lanes_advice(named: Lanes, /, **settings: Any) -> list[tuple[str, str, str]]:  # noqa: ANN401
    made = Settings(**settings)
    return [(one.level, one.name, one.detail) for one in advise_lanes(named, made)]


def test_without_lanes_there_is_nothing_to_say() -> None:
    assert lanes_advice(Lanes()) == []


def test_a_goal_is_held_against_the_measured_capacity() -> None:
    lanes = Lanes([Lane("chat", (Condition("topic", ("chat",)),), goal_s=20)])
    small = {"max_text_bytes": 4_000}
    levels = {
        capacity: lanes_advice(lanes, lanes={"engine_tokens_per_s": capacity}, post=small)[0][0]
        for capacity in (100, 100_000)
    }
    assert levels == {100: "warning", 100_000: "ok"}
    ((level, name, detail), _) = lanes_advice(lanes)
    assert (level, name) == ("warning", "lane chat")
    assert "engine_tokens_per_s is not set" in detail


def test_a_backfill_lane_can_hold_no_goal() -> None:
    lanes = Lanes([Lane("old", (Condition("topic", ("old",)),), goal_s=20, backfill=True)])
    assert "waits for all live lanes" in lanes_advice(lanes)[0][2]


def test_quotas_that_promise_more_than_the_lane_gets_are_found() -> None:
    tenants = {"acme": TenantShare(1, Quota(600, 1)), "other": TenantShare(1, Quota(500, 1))}
    lanes = Lanes([Lane("chat", (Condition("topic", ("chat",)),), tenants=tenants)])
    assert lanes_advice(lanes, lanes={"engine_tokens_per_s": 3_000})[0][0] == "ok"
    level, _, detail = lanes_advice(lanes, lanes={"engine_tokens_per_s": 2_000})[0]
    assert level == "warning"
    assert "1,100 tokens/s together, and the lane gets 1,000" in detail


def test_limits_by_which_one_lane_may_keep_others_out_are_found() -> None:
    lanes = Lanes([Lane("a", (Condition("topic", ("a",)),), limits=LaneLimits(records=9_000))])
    found = [one for one in lanes_advice(lanes) if one[1] == "lanes"]
    assert "may have 18,000 records in flight" in found[0][2]
    fine = Lanes([Lane("a", (Condition("topic", ("a",)),))])
    assert [one for one in lanes_advice(fine) if one[1] == "lanes"] == []
