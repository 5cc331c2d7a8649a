"""``make first-hour``: plays the first hour of three users, from a fresh clone, and prints what each step took.

The policy author writes a policy and tries it on posts of their own. The platform engineer runs the service on a
broker. The downstream developer reads verdicts and checks them against the published contract. Every step is a command
that the documentation shows. A step that fails ends the run with exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import jsonschema
import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT: Final = Path(__file__).parents[1]
_STEP_S_MAX: Final = 900
_TOPICS: Final = ("posts", "stream-guard.verdicts", "stream-guard.dead-letters")
_POSTS: Final = (
    {"id": "1", "text": "Send the deposit first, then I will show you the bike", "author": "a"},
    {"id": "2", "text": "Swap my bike for a pram?", "author": "b"},
    {"id": "3", "text": "Is anybody here good with old radios?", "author": "c"},
)


class StepError(Exception):
    """A step did not do what it is for."""


@dataclass
class Hour:
    """What happened.

    Attributes:
        folder: of everything that is written.
        environment: of every command.
        rows: user, step, seconds.
    """

    folder: Path
    environment: dict[str, str]
    rows: list[tuple[str, str, float]] = field(default_factory=list)

    @contextlib.contextmanager
    def step(self, user: str, what: str) -> Iterator[None]:
        """Time a step, and say that it is under way."""
        sys.stderr.write(f"{user}: {what}\n")
        begun_s = time.monotonic()
        yield
        self.rows.append((user, what, time.monotonic() - begun_s))

    def run(self, *words: str, codes: Sequence[int] = (0,)) -> str:
        """Run a command of Stream Guard; return its standard output."""
        done = subprocess.run(
            [sys.executable, "-m", "stream_guard", *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_STEP_S_MAX,
            check=False,
        )
        if done.returncode not in codes:
            message = f"stream-guard {' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
            raise StepError(message)
        return done.stdout

    @contextlib.contextmanager
    def running(
        self,
        words: Sequence[str],
        ready: Callable[[str], str | None],
        *,
        module: str = "stream_guard",
    ) -> Iterator[str]:
        """Run a command in the background; yield what ``ready`` finds in one of its lines."""
        with (self.folder / f"{words[0].strip('-')}.log").open("w+", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *words],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                yield _wait(Path(log.name), process, ready)
            finally:
                process.send_signal(signal.SIGTERM)
                code = process.wait(_STEP_S_MAX)
        if code:
            message = f"{' '.join(words)}: exit code {code} after SIGTERM"
            raise StepError(message)


def _wait(log: Path, process: subprocess.Popen[bytes], ready: Callable[[str], str | None]) -> str:
    deadline_s = time.monotonic() + _STEP_S_MAX
    while time.monotonic() < deadline_s:
        for line in log.read_text("utf-8", "replace").splitlines():
            found = ready(line)
            if found is not None:
                return found
        if process.poll() is not None:
            break
        time.sleep(0.1)
    message = f"{log.name}: it did not get ready:\n{log.read_text('utf-8', 'replace')[-2_000:]}"
    raise StepError(message)


def _event(name: str) -> Callable[[str], str | None]:
    return lambda line: line if f'"event":"{name}"' in line else None


def _address(line: str) -> str | None:
    return line if re.fullmatch(r"[\w.]+:\d+", line) else None


def author(hour: Hour) -> None:
    """Write a policy, and see what it says about posts of one's own."""
    user, posts = "policy author", hour.folder / "posts.jsonl"
    posts.write_bytes(b"\n".join(orjson.dumps(post) for post in _POSTS) + b"\n")
    with hour.step(user, "`policies new fair-market --topic posts`"):
        hour.run("policies", "new", "fair-market", "--topic", "posts")
    with hour.step(user, "`policies lint`: nothing to object to"):
        hour.run("policies", "lint", "fair-market")
    with hour.step(user, "`policies show fair-market`: what is read in it"):
        hour.run("policies", "show", "fair-market")
    with hour.step(user, "`classify posts.jsonl`: the first verdicts of one's own policy"):
        _judged(hour.run("classify", "posts.jsonl", "--json"))
    with hour.running(("studio", "--no-prompt"), lambda line: line if "ready" in line else None):
        with hour.step(user, "`classify posts.jsonl` again, with a studio running"):
            _judged(hour.run("classify", "posts.jsonl", "--json"))
        policy = hour.folder / "policies/fair-market/policy.md"
        text = policy.read_text("utf-8")
        policy.write_text(text.replace("old radios", "radios") + "\n", "utf-8")
        with hour.step(user, "an edit of policy.md, and `classify` again"):
            _judged(hour.run("classify", "posts.jsonl", "--json"))
        with hour.step(user, "`eval --policy fair-market`: the golden set that came with it"):
            hour.run("eval", "--policy", "fair-market")


def _judged(lines: str) -> None:
    judged = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    if len(judged) != len(_POSTS):
        message = f"classify printed {len(judged)} verdicts for {len(_POSTS)} posts"
        raise StepError(message)


def engineer(hour: Hour) -> None:
    """Check, run, try and stop the service; the developer reads from it meanwhile."""
    user = "platform engineer"
    topics = [word for topic in _TOPICS for word in ("--topic", topic)]
    with hour.step(user, "`python -m stream_guard.testing`: a broker"):
        broker = hour.running(("--brokers", "1", *topics), _address, module="stream_guard.testing")
        address = broker.__enter__()
    try:
        hour.environment |= {
            "STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS": address,
            "STREAM_GUARD_KAFKA__TOPICS": '["posts"]',
            "STREAM_GUARD_TELEMETRY__LOG_FORMAT": "json",
        }
        with hour.step(user, "`check`: what a start needs"):
            hour.run("check")
        with hour.step(user, "`doctor`: what would fail later"):
            hour.run("doctor")
        with hour.step(user, "`run`, until it is ready"):
            service = hour.running(("run",), _event("ready"))
            service.__enter__()
        try:
            with hour.step(user, "`round-trip posts`: a post in, its verdict out"):
                hour.run("round-trip", "posts")
            developer(hour)
        finally:
            with hour.step(user, "SIGTERM, until the process has ended with 0"):
                service.__exit__(None, None, None)
    finally:
        broker.__exit__(None, None, None)


def developer(hour: Hour) -> None:
    """Read verdicts, and hold them against the contract."""
    user = "downstream developer"
    with hour.step(user, "`produce posts.jsonl posts`"):
        hour.run("produce", "posts.jsonl", "posts")
    with hour.step(user, "`tail --json --from-beginning`: the verdicts"):
        count = len(_POSTS) + 1
        printed = hour.run("tail", "--json", "--from-beginning", "--limit", str(count))
    with hour.step(user, "each verdict against docs/contracts/verdict-1.1.json"):
        schema = orjson.loads((ROOT / "docs/contracts/verdict-1.1.json").read_bytes())
        verdicts = [orjson.loads(line) for line in printed.splitlines() if line.startswith("{")]
        if len(verdicts) != count:
            message = f"tail printed {len(verdicts)} verdicts; {count} were expected"
            raise StepError(message)
        for verdict in verdicts:
            jsonschema.validate(verdict, schema)


def _environment(folder: Path, own: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in own.items() if not name.startswith("STREAM_GUARD_")}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "STREAM_GUARD_ENGINE__MODEL": "demo",
        "STREAM_GUARD_ENGINE__MAX_NUM_SEQS": "16",
        "STREAM_GUARD_POLICIES__PATH": str(folder / "policies"),
        "STREAM_GUARD_HTTP__PORT": "0",
        "XDG_RUNTIME_DIR": str(folder),
    }


def main() -> int:
    """Play all three; return the exit code."""
    parser = argparse.ArgumentParser(prog="make first-hour", description=__doc__)
    parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="first-hour-") as name:
        folder = Path(name)
        (folder / "policies").mkdir()
        hour = Hour(folder, _environment(folder, os.environ))
        try:
            author(hour)
            engineer(hour)
        except (StepError, subprocess.TimeoutExpired, jsonschema.ValidationError) as error:
            sys.stderr.write(f"{error}\n")
            return 1
    lines = ["| user | step | time |", "|---|---|---|"]
    lines += [f"| {user} | {what} | {seconds:.1f} s |" for user, what, seconds in hour.rows]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
