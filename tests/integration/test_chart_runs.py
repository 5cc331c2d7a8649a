"""What the chart says of a container starts the real program: its command, variables, files, probes and test.

Only the places differ: what a cluster mounts lies in the test's own folder, laid out as a kubelet does.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from tests.helm.chart import Object, Rendered, render_with
from tests.integration.harness import HANG_S, ROOT, Running

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.testing import Broker

IMAGE = (ROOT / "Dockerfile").read_text("utf-8")


@dataclass
class Node:
    """Where the volumes of a pod lie, and what a cluster would fill in."""

    folder: Path
    pod_name: str = "guard-stream-guard-0"
    swaps: int = field(default=0)

    def environment(self, container: Object) -> dict[str, str]:
        """Return the container's variables and nothing else, with paths in mounted folders moved here."""
        mounted = sorted((m["mountPath"] for m in container["volumeMounts"]), reverse=True)
        wanted = image_environment()
        for variable in container["env"]:
            if "valueFrom" in variable:
                assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
                wanted[variable["name"]] = self.pod_name
            else:
                wanted[variable["name"]] = variable["value"]
        for name, value in wanted.items():
            if any(value == path or value.startswith(f"{path}/") for path in mounted):
                wanted[name] = str(self.folder) + value
                Path(wanted[name]).mkdir(parents=True, exist_ok=True)
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**wanted, "PATH": programs, "PYTHONPATH": str(ROOT)}

    def mount_config_map(self, rendered: Rendered, volume: str) -> None:
        """Put a ConfigMap's items in place as a kubelet does: a new folder, and one symlink swapped to it."""
        (mount,) = [m for m in rendered.container["volumeMounts"] if m["name"] == volume]
        asked = rendered.volumes[volume]["configMap"]
        (data,) = [
            m["data"] for m in rendered.of("ConfigMap") if m["metadata"]["name"] == asked["name"]
        ]
        root = Path(f"{self.folder}{mount['mountPath']}")
        self.swaps += 1
        new = root / f"..2026_{self.swaps}"
        for item in asked["items"]:
            file = new / item["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(data[item["key"]], "utf-8")
        link = root / "..data_tmp"
        link.symlink_to(new.name)
        link.replace(root / "..data")
        for entry in new.iterdir():
            visible = root / entry.name
            if not visible.is_symlink():
                visible.symlink_to(f"..data/{entry.name}")


def command_of(container: Object) -> list[str]:
    """Return command and arguments; without a command, the image's entry point from where the image takes it."""
    if "command" in container:
        return [*container["command"], *container["args"]]
    (entry,) = re.findall(r'^ENTRYPOINT \["/usr/local/bin/(\S+)"\]$', IMAGE, re.MULTILINE)
    assert f"deploy/image/{entry} " in IMAGE
    return [str(ROOT / "deploy" / "image" / entry), *container["args"]]


def image_environment() -> dict[str, str]:
    """Return what the image sets, and the rendered container inherits."""
    block = IMAGE.partition("FROM ${PYTHON_IMAGE} AS runtime")[2].partition("\nENV ")[2]
    block = block.partition("\nCOPY ")[0].replace("\\\n", " ")
    return dict(word.split("=", 1) for word in block.split())


def run_once(container: Object, node: Node) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_of(container),
        env=node.environment(container),
        cwd=node.folder,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


class Pod(Running):
    """The consumer's container, running."""

    def __init__(self, rendered: Rendered, node: Node, log: Path, **host: str) -> None:
        self.log = log
        container = rendered.container
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command_of(container),
                env=node.environment(container) | host,
                cwd=node.folder,
                stdout=file,
                stderr=file,
            )


async def ask(container: Object, probe: str) -> int:
    """Return the status that a probe is answered with."""
    get = container[probe]["httpGet"]
    (port,) = [p["containerPort"] for p in container["ports"] if p["name"] == get["port"]]
    timeout = aiohttp.ClientTimeout(total=container[probe]["timeoutSeconds"])
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(f"http://127.0.0.1:{port}{get['path']}") as answer,
    ):
        return answer.status


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def values_for(broker: Broker, new_topic: Callable[..., str], **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a user's values for this machine: a judge without a model, since there is no GPU."""
    return {
        "kafka.bootstrapServers": broker.bootstrap_servers,
        "kafka.topics": [new_topic("posts")],
        "kafka.groupId": new_topic("group"),
        "config.kafka.verdict_topic": new_topic("verdicts"),
        "config.kafka.dead_letter_topic": new_topic("dead"),
        "config.kafka.session_timeout_ms": 6000,
        "config.kafka.heartbeat_interval_ms": 500,
        "config.http.port": free_port(),
        **more,
    }


async def test_the_container_becomes_ready_judges_and_answers_its_probes(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    values = values_for(broker, new_topic, **{"test.timeoutSeconds": 60})
    rendered = render_with(values, "cpu")
    node = Node(tmp_path)
    node.mount_config_map(rendered, "policies")
    pod = Pod(rendered, node, tmp_path / "log")
    try:
        assert pod.wait_for("ready")["http_port"] == values["config.http.port"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert await ask(rendered.container, probe) == 200, probe
        assert pod.wait_for("starting")["group"] == values["kafka.groupId"]

        (test,) = rendered.of("Pod")
        (container,) = test["spec"]["containers"]
        done = await asyncio.to_thread(run_once, container, node)
        assert done.returncode == 0, done.stderr
        verdict = orjson.loads(done.stdout)
        assert verdict["source"]["topic"] == values["kafka.topics"][0]
        assert verdict["policy"]["id"] == "spam"

        assert pod.end(seconds=rendered.pod["terminationGracePeriodSeconds"]) == 0, pod.tail()
    finally:
        if pod.process.poll() is None:
            pod.process.kill()
            pod.process.wait()


async def test_an_edit_of_the_config_map_goes_live_by_the_swap_of_its_symlink(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    values = values_for(broker, new_topic, **{"config.engine.kind": "scripted", "gpu.count": 0})
    rendered = render_with(values, "policies-several")
    text = rendered.one("ConfigMap")["data"]["spam.policy.md"]
    edited = render_with(
        {**values, "policies.files.spam.policy": f"{text}- SP1.b asks for clicks\n"},
        "policies-several",
    )
    assert edited.one("StatefulSet") == rendered.one("StatefulSet"), "an edit restarts no pod"
    node = Node(tmp_path)
    node.mount_config_map(rendered, "policies")
    pod = Pod(rendered, node, tmp_path / "log")
    try:
        pod.wait_for("ready")
        node.mount_config_map(edited, "policies")
        assert pod.wait_for("policies_switched")["changed"] == ["spam"]
        assert await ask(rendered.container, "readinessProbe") == 200
        assert pod.end() == 0, pod.tail()
    finally:
        if pod.process.poll() is None:
            pod.process.kill()
            pod.process.wait()


def partitions(pod: Running) -> list[str]:
    """Return what a pod was assigned last."""
    found = [line for line in pod.log.read_bytes().splitlines() if b'"event":"assigned"' in line]
    return list(orjson.loads(found[-1])["partitions"]) if found else []


def wait_until(holds: Callable[[], bool]) -> None:
    """Return once something holds; fail where it does not come to."""
    deadline_s = time.monotonic() + HANG_S
    while not holds():
        assert time.monotonic() < deadline_s, f"not within {HANG_S} s"
        time.sleep(0.05)


def test_a_rolling_update_moves_no_partitions(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    # The chart's own session time-out, within which a pod is back.
    values = values_for(broker, new_topic, replicas=2) | {
        "config.kafka.session_timeout_ms": 120_000
    }
    rendered = render_with(values, "cpu")
    started: list[Pod] = []

    def start(number: int, version: str) -> Pod:
        folder = tmp_path / f"{number}{version}"
        node = Node(folder, f"guard-stream-guard-{number}")
        node.mount_config_map(rendered, "policies")
        # Pods have an address each; here they share one.
        started.append(Pod(rendered, node, folder / "log", STREAM_GUARD_HTTP__PORT="0"))
        started[-1].wait_for("ready")
        return started[-1]

    try:
        pods = [start(0, "old"), start(1, "old")]
        wait_until(lambda: [len(partitions(pod)) for pod in pods] == [1, 1])
        # The last one first, as a StatefulSet does; one of the two leads the group.
        for number in (1, 0):
            had, other = partitions(pods[number]), pods[1 - number]
            before = other.log.read_bytes().count(b'"event":"revoked"')
            assert pods[number].end() == 0, pods[number].tail()
            pods[number] = start(number, "new")
            wait_until(lambda pod=pods[number]: bool(partitions(pod)))  # type: ignore[misc]
            assert partitions(pods[number]) == had
            # A rebalance would have waited for the other to give its partitions back.
            assert other.log.read_bytes().count(b'"event":"revoked"') == before
        for pod in pods:
            assert pod.end() == 0, pod.tail()
    finally:
        for pod in started:
            if pod.process.poll() is None:
                pod.process.kill()
                pod.process.wait()
