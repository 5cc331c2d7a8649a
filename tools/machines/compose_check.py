"""Runs docker-compose.yml as its readers do, and prints a table.

    make compose-check
    SERVICES="kafka topics stream-guard producer" make compose-check     only these, in this order

With `docker compose`, or with podman-compose (named in ``COMPOSE`` if it is not on the PATH). The containers and the
volumes of the project are removed at the end.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

import yaml

from tools.machines import records
from tools.machines.containers import ROOT, program
from tools.machines.steps import Steps, execute, need, not_json, until

BOOTSTRAP = "localhost:9092"
TOPICS = ("stream-guard.verdicts", "stream-guard.dead-letters")
POSTS = "forum.posts"
READY_URL = "http://localhost:8080/readyz"


def compose_program() -> list[str]:
    """Return the compose program."""
    if os.environ.get("COMPOSE"):
        return shlex.split(os.environ["COMPOSE"])
    if shutil.which("docker"):
        compose = ["docker", "compose"]
        # Docker's client may be here without the plugin.
        if subprocess.run([*compose, "version"], capture_output=True, check=False).returncode == 0:
            return compose
    if shutil.which("podman-compose"):
        return ["podman-compose"]
    sys.exit(
        "neither `docker compose` nor podman-compose is here; install one, or name one in COMPOSE"
    )


class Project:
    """The compose project.

    Args:
        compose: the compose program.
        engine: what runs its containers.
    """

    def __init__(self, compose: list[str], engine: str) -> None:
        self._compose = [*compose, "--file", str(ROOT / "docker-compose.yml")]
        self._engine = engine
        file = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
        self.services: dict[str, Any] = file["services"]

    def run(self, *arguments: str, check: bool = True) -> str:
        """Return what the compose program prints."""
        command = [*self._compose, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, check=check, timeout=900
        )
        return done.stdout + done.stderr

    def container(self, service: str) -> str:
        """Return the name of a service's container."""
        listed = execute(self._engine, "ps", "--all", "--format", "{{.Names}}").stdout.split()
        wanted = (f"stream-guard-{service}-1", f"stream-guard_{service}_1")
        return next((name for name in listed if name in wanted), wanted[0])

    def state(self, service: str, form: str) -> str:
        """Return a field of a service's container; nothing where there is none."""
        asked = (self._engine, "inspect", "--format", form, self.container(service))
        return execute(*asked, check=False).stdout.strip()

    def logs(self, service: str) -> str:
        """Return all that a service wrote."""
        done = execute(self._engine, "logs", self.container(service), check=False)
        return done.stdout + done.stderr

    def start(self, service: str) -> None:
        """Start one service, and wait as those that depend on it would.

        Not all at once: podman-compose with podman 4.3 ignores ``condition: service_healthy``.
        """
        self.run("up", "--detach", "--no-deps", service)
        if service == "topics":
            until(
                "the end of topics",
                lambda: self.state(service, "{{.State.Status}}") == "exited",
                120,
            )
            code = self.state(service, "{{.State.ExitCode}}")
            need(code == "0", f"topics ended with {code}: {self.logs(service)[-500:]}")
        elif service == "kafka":
            test = self.services[service]["healthcheck"]["test"][1:]
            name = self.container(service)
            until(
                "Kafka's health check",
                lambda: execute(self._engine, "exec", name, *test, check=False).returncode == 0,
                120,
            )

    def remove(self, *, volumes: bool) -> None:
        """Remove the containers, and the volumes where asked."""
        self.run("down", *(["--volumes"] if volumes else []), check=False)


def is_ready() -> bool:
    """Return whether the service judges posts."""
    try:
        with urllib.request.urlopen(READY_URL, timeout=2) as answer:
            return bool(answer.status == 200)  # noqa: PLR2004 - OK
    except (urllib.error.URLError, OSError):
        return False


def start_all(steps: Steps, project: Project, names: list[str]) -> None:
    """Start each service, and wait for the service to be ready."""
    for name in names:
        with steps.step(f"up {name}") as row:
            project.start(name)
            row.seen = project.state(name, "{{.State.Status}}")
    if "stream-guard" in names:
        with steps.step("stream-guard is ready") as row:
            begun_s = time.monotonic()
            until("readiness", is_ready, 180)
            row.seen = f"after {time.monotonic() - begun_s:.0f} s more"


def check_traffic(steps: Steps, project: Project, names: list[str]) -> int:
    """The producer's posts get verdicts; returns how many verdicts there are."""
    with steps.step("the producer's posts get verdicts") as row:
        found = until("20 verdicts", lambda: _enough(20), 180)
        row.seen = f"{len(found)} verdicts so far"
    with steps.step("ports") as row:
        listening = execute("ss", "-Htln", check=False).stdout.split("\n")
        wanted = {
            port.split(":")[1] for name in names for port in project.services[name].get("ports", ())
        }
        open_ports = [
            row
            for row in listening
            if row.split()[3:4] and row.split()[3].rpartition(":")[2] in wanted
        ]
        bad = [
            line.split()[3] for line in open_ports if not line.split()[3].startswith("127.0.0.1:")
        ]
        need(not bad, f"open beyond this machine: {bad}")
        row.seen = f"{len(wanted)} published, each on 127.0.0.1"
    with steps.step("every line of its output") as row:
        text = project.logs("stream-guard")
        bad = not_json(text)
        need(not bad, f"{len(bad)} lines are not JSON: {bad[:3]}")
        row.seen = f"{len(text.splitlines())} lines, each one JSON object"
    return len(records.Reader(BOOTSTRAP).outs(TOPICS))


def _enough(count: int) -> list[records.Out] | None:
    found = records.Reader(BOOTSTRAP).outs(TOPICS)
    return found if len(found) >= count else None


def check_down_and_up(steps: Steps, project: Project, names: list[str], before: int) -> None:
    """Topics outlive `down` and `up`."""
    with steps.step("down") as row:
        project.remove(volumes=False)
        row.seen = "containers removed, volumes kept"
    start_all(steps, project, [name for name in names if name in ("kafka", "topics")])
    with steps.step("topics and their records are still there") as row:
        found = records.Reader(BOOTSTRAP).outs(TOPICS)
        posts = {(r.partition, r.offset) for r in records.Reader(BOOTSTRAP).read(POSTS)}
        need(len(found) >= before, f"{len(found)} verdicts, and there were {before}")
        row.seen = f"{len(posts)} posts, {len(found)} verdicts"
    start_all(steps, project, [name for name in names if name == "stream-guard"])
    with steps.step("the rest is judged, nothing twice") as row:
        made = until("a verdict for each post", lambda: _complete(posts), 180)
        need(made.repeated == 0, str(made))
        row.seen = (
            f"{made.posts} posts, {made.posts - made.missing} judged, {made.repeated} repeated"
        )


def _complete(posts: set[tuple[int, int]]) -> records.Account | None:
    made = records.account(sorted(posts), records.Reader(BOOTSTRAP).outs(TOPICS), 0)
    return made if made.missing == 0 else None


def main() -> None:
    """Run all steps; print the table."""
    compose, engine = compose_program(), program(runs=True)
    project = Project(compose, engine)
    default = [name for name, service in project.services.items() if "profiles" not in service]
    names = os.environ.get("SERVICES", "").split() or default
    version = execute(engine, "--version").stdout.split("version")[-1].split(",")[0].strip()
    steps = Steps("`make compose-check`", {engine: version, "services": " ".join(names)})
    project.remove(volumes=True)
    try:
        with steps.step("the file is read") as row:
            found = yaml.safe_load(project.run("config").partition("\nusing ")[0])
            row.seen = f"{len(found['services'])} services"
        start_all(steps, project, names)
        check_down_and_up(steps, project, names, check_traffic(steps, project, names))
    finally:
        project.remove(volumes=True)
    steps.show()


if __name__ == "__main__":
    main()
