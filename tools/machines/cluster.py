"""kubectl and helm, for the checks of the chart: a release, its pods, and what they do."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.machines.containers import ROOT
from tools.machines.steps import StepError, execute, need, until
from tools.vendor_crds import SOURCES

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

CHART = ROOT / "helm" / "stream-guard"
# Ends the engine's process of the container that it runs in: the fork server's child.
KILL_ENGINE = """
import os, signal
for pid in filter(str.isdigit, os.listdir('/proc')):
    name = open(f'/proc/{pid}/cmdline', 'rb').read()
    parent = open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[1]
    if b'forkserver' in name and parent != '1' and int(pid) != os.getpid():
        os.kill(int(pid), signal.SIGKILL)
        print(pid)
"""
# Run on a node, by root, with the node's processes: ends a container's first process as the node sees it, and prints
# when. Neither the container nor the kubelet is asked first.
KILL_CONTAINER = """
import os, signal, sys, time
for pid in filter(str.isdigit, os.listdir('/proc')):
    try:
        group = open(f'/proc/{pid}/cgroup').read()
        status = open(f'/proc/{pid}/status').read()
    except OSError:
        continue  # it has ended
    numbers = [line.split() for line in status.splitlines() if line.startswith('NSpid:')]
    if sys.argv[1] in group and numbers and numbers[0][-1] == '1':
        os.kill(int(pid), signal.SIGKILL)
        print(time.time())
"""


def kubectl(*arguments: object, check: bool = True, timeout_s: float = 300) -> str:
    """Return what kubectl prints."""
    program = os.environ.get("KUBECTL") or "kubectl"
    return execute(program, *arguments, check=check, timeout_s=timeout_s).stdout


def read(*arguments: object) -> Any:
    """Return an object, or a list of them, as kubectl's JSON has it."""
    return json.loads(kubectl("get", *arguments, "--output", "json"))


def helm(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run Helm: ``HELM``, or beside this Python, or on the PATH."""
    beside = Path(sys.executable).parent / "helm"
    program = os.environ.get("HELM") or (str(beside) if beside.exists() else shutil.which("helm"))
    if program is None:
        sys.exit("Helm is not here; install Helm 3, or name it in HELM")
    return execute(program, *arguments, check=check)


def versions() -> dict[str, str]:
    """Return the versions of Kubernetes and Helm, and how many nodes there are, for a table."""
    server = json.loads(kubectl("version", "--output=json"))["serverVersion"]
    nodes = read("nodes")["items"]
    return {
        "Kubernetes": server["gitVersion"],
        "Helm": helm("version", "--template", "{{.Version}}").stdout,
        "nodes": f"{len(nodes)} with {nodes[0]['status']['capacity']['cpu']} CPUs",
    }


def parent_of_the_chart() -> str:
    """Return the parent of the last commit that changed the chart."""
    last = execute("git", "-C", ROOT, "log", "-1", "--format=%h", "--", "helm/stream-guard").stdout
    return f"{last.strip()}^"


def changed_files(first: Path, second: Path) -> list[str]:
    """Return the files that differ between two folders, by their paths below them."""
    folders = [
        {
            str(file.relative_to(folder)): file.read_bytes()
            for file in folder.rglob("*")
            if file.is_file()
        }
        for folder in (first, second)
    ]
    names = folders[0].keys() | folders[1].keys()
    return sorted(name for name in names if folders[0].get(name) != folders[1].get(name))


def chart_of(reference: str) -> Path:
    """Return a folder with the chart as a commit has it."""
    folder = Path(tempfile.mkdtemp(prefix="stream-guard-chart-"))
    archive = folder / "chart.tar"
    execute("git", "-C", ROOT, "archive", "-o", archive, reference, "helm/stream-guard")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / "helm" / "stream-guard"


def crds() -> list[Path]:
    """Return the files of KEDA's and the Prometheus Operator's definitions, from Go's module proxy."""
    files = []
    for module, folder, names in SOURCES:
        done = execute("go", "mod", "download", "-json", module)
        place = Path(json.loads(done.stdout)["Dir"]) / folder
        files += [next(place.glob(f"{name}.yaml")) for name in names]
    return files


class Release:
    """One release of the chart.

    Args:
        name: of the release; it holds the chart's name, so that objects are named as the release.
        namespace: where it is.
        values: of all its versions.
    """

    def __init__(self, name: str, namespace: str, values: Mapping[str, Any]) -> None:
        self.name, self.namespace = name, namespace
        self._values = dict(values)
        self._folder = Path(tempfile.mkdtemp(prefix="stream-guard-values-"))

    def upgrade(self, chart: Path = CHART, **changed: Any) -> subprocess.CompletedProcess[str]:
        """Install or upgrade; what is changed stays changed. Does not wait for pods.

        Args:
            chart: its folder.
            changed: values, whole top-level sections of them.
        """
        self._values |= changed
        file = self._folder / "values.yaml"
        file.write_text(json.dumps(self._values))
        return helm("upgrade", "--install", self.name, chart, "-n", self.namespace, "-f", file)

    def try_upgrade(self, **changed: Any) -> str:
        """Return what Helm says against an upgrade, which must not succeed; change nothing."""
        file = self._folder / "tried.yaml"
        file.write_text(json.dumps({**self._values, **changed}))
        done = helm("upgrade", self.name, CHART, "-n", self.namespace, "-f", file, check=False)
        need(done.returncode != 0, "the upgrade was let through")
        return done.stderr

    def wait(self, timeout_s: float = 180) -> None:
        """Return once every pod of the latest version is ready."""
        timeout = f"--timeout={timeout_s:.0f}s"
        kubectl(
            "-n",
            self.namespace,
            "rollout",
            "status",
            f"sts/{self.name}",
            timeout,
            timeout_s=timeout_s + 5,
        )
        count = self.spec()["replicas"]
        until(f"{count} pods", lambda: self._ready_and_no_more(count), timeout_s)

    def _ready_and_no_more(self, count: int) -> bool:
        pods = self.pods()
        return len(pods) == count and all(map(_is_ready, pods))

    def spec(self) -> dict[str, Any]:
        """Return the StatefulSet's spec."""
        spec: dict[str, Any] = read("-n", self.namespace, "sts", self.name)["spec"]
        return spec

    def pods(self) -> list[dict[str, Any]]:
        """Return its pods, by name."""
        labels = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component=consumer"
        items: list[dict[str, Any]] = read("-n", self.namespace, "pods", "-l", labels)["items"]
        return sorted(items, key=lambda pod: str(pod["metadata"]["name"]))

    def ids(self) -> dict[str, tuple[str, int]]:
        """Return each pod's uid and its restarts; equal before and after where nothing restarted."""
        return {
            pod["metadata"]["name"]: (
                pod["metadata"]["uid"],
                sum(c["restartCount"] for c in pod["status"].get("containerStatuses", ())),
            )
            for pod in self.pods()
        }

    def test(self) -> str:
        """Run `helm test --logs`; return the last line of the log."""
        done = helm(
            "test", self.name, "-n", self.namespace, "--logs", "--timeout", "3m", check=False
        )
        if done.returncode:
            raise StepError(f"helm test ended with {done.returncode}: {done.stderr[-400:]}")
        return done.stdout.strip().splitlines()[-1]

    def execute(self, pod: str, *command: str, check: bool = True) -> str:
        """Return what a command in a pod prints."""
        return kubectl("-n", self.namespace, "exec", pod, "--", *command, check=check)

    def kill(self, pod: str, image: str) -> float:
        """End a pod's program from its node with SIGKILL; return when, in seconds since 1970.

        A second pod on the node does it, with the node's processes: a container's first process cannot be killed from
        inside (pid_namespaces(7)).

        Args:
            pod: its name.
            image: with Python, on the node.
        """
        (found,) = [p for p in self.pods() if p["metadata"]["name"] == pod]
        container = found["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
        command = ["python", "-I", "-c", KILL_CONTAINER, container]
        killer = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "killer", "namespace": self.namespace},
            "spec": {
                "nodeName": found["spec"]["nodeName"],
                "hostPID": True,
                "restartPolicy": "Never",
                "containers": [
                    {
                        "name": "killer",
                        "image": image,
                        "command": command,
                        "securityContext": {"runAsUser": 0},
                    }
                ],
            },
        }
        file = self._folder / "killer.json"
        file.write_text(json.dumps(killer))
        here = ("-n", self.namespace)
        kubectl("apply", "-f", file)
        until(
            "the end of the pod that kills",
            lambda: read(*here, "pod", "killer")["status"].get("phase") in ("Succeeded", "Failed"),
            60,
        )
        said = kubectl(*here, "logs", "killer")
        kubectl(*here, "delete", "pod", "killer", "--wait=false")
        need(said.strip(), f"no process of the container {container} was found on the node")
        return float(said.split()[0])

    def evict(self, pod: str) -> bool:
        """Ask for a pod's eviction; return whether its disruption budget allows it."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction"
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": self.namespace},
        }
        file = self._folder / "eviction.json"
        file.write_text(json.dumps(body))
        program = os.environ.get("KUBECTL") or "kubectl"
        done = execute(program, "create", "--raw", path, "-f", file, check=False)
        if done.returncode and "disruption budget" not in done.stderr:
            raise StepError(f"the eviction of {pod} was refused: {done.stderr[-300:]}")
        return done.returncode == 0


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", ())
    going = "deletionTimestamp" in pod["metadata"]
    return not going and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
