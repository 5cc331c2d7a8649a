"""``stream-guard studio`` serves other commands of the same user, and judges again what an author kept."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

from stream_guard.cli.main import app
from stream_guard.core.errors import EngineError, PromptError, StreamGuardError
from stream_guard.core.exit_codes import ExitCode
from stream_guard.judging.contract import Answer, Judgement, Provenance
from stream_guard.judging.engine.scripted import ScriptedJudge
from stream_guard.judging.families.family import Exchange
from stream_guard.offline.studio.address import Address
from stream_guard.offline.studio.identity import engine_identity
from stream_guard.offline.studio.server import StudioServer
from stream_guard.offline.studio.warm_engine import WarmEngine
from stream_guard.policies.policy import PolicySet
from stream_guard.settings import EngineSettings, Settings
from tests.hang import HANG_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from stream_guard.judging.contract import JudgeRequest

POLICY = """\
# Touting (#TO)

Label a post VIOLATES if it breaks a rule and SAFE if not.

## TO1 Selling

- TO1.a Selling tickets

Output: VIOLATES

## TO0 Anything else

Output: SAFE
"""


class FromStudio(ScriptedJudge):
    """Answers with a rationale that no other judge gives, and fails a post that says so."""

    def __init__(self) -> None:
        super().__init__()
        self.engine: WarmEngine
        self.prepared: list[str] = []
        self.asked: Callable[[], None] = lambda: None

    async def prepare(self, policies: PolicySet) -> None:
        self.prepared += policies.policies

    def submit(
        self, requests: Sequence[JudgeRequest], deliver: Callable[[Sequence[Judgement]], None]
    ) -> None:
        self.asked()
        for request in requests:
            self.engine._hear(Exchange(request.id, "low", "the prompt", "the completion", 2, 2, ""))
            if "[long]" in request.post.text:
                deliver([Judgement(request, error=PromptError("too long for a prompt"))])
                continue
            answer = Answer("violates", "TO1", ("TO1.a",), f"by {request.policy.effort} effort")
            about = Provenance("safeguard", "the-studio", effort=request.policy.effort)
            confidence = 0.9 if "tickets" in request.post.text else 0.75
            deliver([Judgement(request, answer, None, about, confidence, "told", 1, 2)])

    def describe(self) -> Mapping[str, str]:
        return {"engine": "studio", "model": "the-studio"}


class Serving:
    """A studio's server in a thread, as another process would run it."""

    def __init__(self, path: Path) -> None:
        self.judge = FromStudio()
        self._path = path
        self._up = threading.Event()
        self._down: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._up.wait(HANG_S)

    async def _serve(self) -> None:
        self._loop, self._down = asyncio.get_running_loop(), asyncio.Event()
        engine = self.judge.engine = WarmEngine(Settings(), judge=self.judge)
        server = StudioServer(
            engine, engine_identity(EngineSettings(kind="scripted")), lambda: None
        )
        with Address(self._path) as address:
            await server.start(address.listener)
            await engine.start(PolicySet({}))
            self._up.set()
            await self._down.wait()
            await server.close()

    def end(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._down.set)
        self._thread.join(HANG_S)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "run" / "studio.sock"


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    folder = tmp_path / "policies"
    (folder / "touting").mkdir(parents=True)
    (folder / "touting" / "policy.md").write_text(POLICY)
    return folder


@pytest.fixture
def serving(place: Path) -> Iterator[Serving]:
    studio = Serving(place)
    try:
        yield studio
    finally:
        studio.end()


@pytest.fixture
def run(place: Path, policies: Path) -> Callable[..., Result]:
    def invoke(*words: str, text: str | None = None, **settings: str) -> Result:
        environment = {
            "STREAM_GUARD_ENGINE__KIND": "scripted",
            "STREAM_GUARD_STUDIO__SOCKET": str(place),
            "STREAM_GUARD_POLICIES__PATH": str(policies),
        }
        return CliRunner().invoke(app, words, env=environment | settings, input=text)

    return invoke


@pytest.mark.usefixtures("serving")
def test_classify_judges_on_the_engine_of_a_studio(run: Callable[..., Result]) -> None:
    result = run("classify", "a post", "--effort", "high", "--explain", "--json")
    verdict = json.loads(result.stdout)
    assert verdict["provenance"]["model"] == "the-studio"
    assert verdict["policy"]["rationale"] == "by high effort"
    assert verdict["policy"]["rule_ids"] == ["TO1.a"]
    assert (verdict["confidence"]["value"], verdict["confidence"]["method"]) == (0.75, "told")
    (exchange,) = verdict["explanation"]
    assert exchange["completion"] == "the completion"
    assert result.stderr == ""


def test_a_studio_prepares_a_policy_once_and_each_new_text_of_it(
    serving: Serving, run: Callable[..., Result], policies: Path
) -> None:
    run("classify", "a post")
    run("classify", "another post")
    assert serving.judge.prepared == ["touting"]
    (policies / "touting" / "policy.md").write_text(POLICY.replace("tickets", "seats"))
    run("classify", "a post")
    assert serving.judge.prepared == ["touting", "touting"]


@pytest.mark.usefixtures("serving")
def test_the_fault_of_a_post_comes_back_as_it_is(run: Callable[..., Result]) -> None:
    result = run("classify", "[long]")
    assert result.exit_code == ExitCode.USAGE
    assert "would be a dead letter under touting: too long for a prompt" in result.stderr


@pytest.mark.usefixtures("serving")
def test_eval_and_attack_judge_on_it_as_well(run: Callable[..., Result], tmp_path: Path) -> None:
    golden = tmp_path / "golden.csv"
    golden.write_text("text,label\na post,TO1\nanother,TO1\n")
    out = str(tmp_path / "out")
    report = json.loads(run("eval", "--policy", "touting", str(golden), "-o", out, "--json").stdout)
    assert report["model"]["model"] == "the-studio"
    attacked = run("policies", "attack", "touting", "--posts", str(golden), "--json")
    assert json.loads(attacked.stdout)["model"] == "the-studio"


@pytest.mark.usefixtures("serving")
def test_calibrate_judges_the_golden_set_on_it(run: Callable[..., Result], policies: Path) -> None:
    rows = [f"tickets {n},{'TO1' if n % 6 else 'TO0'}" for n in range(12)]
    rows += [f"a post {n},{'TO0' if n % 6 else 'TO1'}" for n in range(12)]
    assert "has no golden set" in str(run("policies", "calibrate", "touting").exception)
    (policies / "touting" / "policy.yaml").write_text("golden_set: golden.csv\n")
    (policies / "touting" / "golden.csv").write_text("\n".join(["text,label", *rows]))
    result = run("policies", "calibrate", "touting")
    curve = json.loads(result.stdout)
    assert (curve["fitted_on"], curve["model"]) == (24, "the-studio")
    assert "24 posts; mean squared error on held-out posts" in result.stderr
    own = run("policies", "calibrate", "touting", "--no-studio")
    assert "24 without a confidence" in str(own.exception)


@pytest.mark.usefixtures("serving")
def test_without_a_studio_a_command_has_its_own_engine(run: Callable[..., Result]) -> None:
    result = run("classify", "a post", "--no-studio", "--json")
    assert json.loads(result.stdout)["provenance"]["model"] == "scripted"


@pytest.mark.usefixtures("serving")
def test_a_studio_with_other_settings_is_not_used_and_the_command_says_why(
    run: Callable[..., Result],
) -> None:
    result = run("classify", "a post", "--json", STREAM_GUARD_ENGINE__SCRIPTED_VIOLATES="[bad]")
    assert json.loads(result.stdout)["provenance"]["model"] == "scripted"
    assert (
        f"the studio is not used: in process {os.getpid()}, engine.scripted_violates is [violates] there and "
        "[bad] here;" in result.stderr
    )


@pytest.mark.parametrize("what", ["folder", "socket"])
@pytest.mark.usefixtures("serving")
def test_a_socket_that_others_can_reach_is_not_used(
    what: str, run: Callable[..., Result], place: Path
) -> None:
    open_to_others = place.parent if what == "folder" else place
    open_to_others.chmod(0o755)
    result = run("classify", "a post", "--json")
    assert json.loads(result.stdout)["provenance"]["model"] == "scripted"
    assert f"other users have rights on {open_to_others}; run: chmod go=" in result.stderr


@pytest.mark.usefixtures("serving")
def test_a_process_of_another_user_is_not_served(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_guard.offline.studio.server.peer_uid", lambda _: os.geteuid() + 1)
    result = run("classify", "a post", "--json")
    assert json.loads(result.stdout)["provenance"]["model"] == "scripted"
    assert "it does not answer as a studio of this version does" in result.stderr


@pytest.mark.usefixtures("serving")
def test_a_studio_of_another_user_is_not_used(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    monkeypatch.setattr(
        "stream_guard.offline.studio.remote_judge.peer_uid", lambda _: os.geteuid() + 1
    )
    result = run("classify", "a post", "--json")
    assert f"{place} is served by user {os.geteuid() + 1}" in result.stderr


def test_a_studio_that_ends_while_it_judges_is_one_clear_error(
    serving: Serving, run: Callable[..., Result]
) -> None:
    def lost() -> None:
        raise ConnectionResetError  # ends the connection before an answer

    serving.judge.asked = lost
    result = run("classify", "a post")
    assert isinstance(result.exception, EngineError)
    assert "ended while it judged" in str(result.exception)
    assert "run the command again" in str(result.exception)


@pytest.mark.usefixtures("serving")
def test_a_message_that_is_none_ends_its_connection_alone(
    run: Callable[..., Result], place: Path
) -> None:
    for content in (b"\xff\xff\xff\xff", b"\0\0\0\x02{}", b"\0\0\0\x0c" + b'{"is":"???"}'):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(HANG_S)
            connection.connect(str(place))
            connection.sendall(content)
            while connection.recv(65_536):
                pass
    assert "the-studio" in run("classify", "a post").stdout


def test_an_abandoned_socket_is_no_obstacle(run: Callable[..., Result], place: Path) -> None:
    place.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))
    place.chmod(0o600)
    result = run("classify", "a post", "--json")
    assert json.loads(result.stdout)["provenance"]["model"] == "scripted"
    assert result.stderr == ""
    studio = run("studio", text="a post\n")
    assert studio.exit_code == ExitCode.CLEAN, studio.output
    assert not place.exists()


@pytest.mark.usefixtures("serving")
def test_two_studios_do_not_run_at_once(run: Callable[..., Result]) -> None:
    result = run("studio", text="")
    assert isinstance(result.exception, StreamGuardError)
    assert f"a studio runs already (process {os.getpid()}," in str(result.exception)


def test_a_folder_of_others_is_no_place_for_a_studio(
    run: Callable[..., Result], place: Path
) -> None:
    place.parent.mkdir()
    place.parent.chmod(0o777)
    result = run("studio", text="")
    assert isinstance(result.exception, StreamGuardError)
    assert f"other users have rights on {place.parent}" in str(result.exception)


def test_typed_posts_are_judged_and_kept(run: Callable[..., Result], tmp_path: Path) -> None:
    posts = tmp_path / "posts.jsonl"
    posts.write_text('{"id":"a","text":"[violates] in a file"}\n')
    typed = "fine\n\n[violates]\n/posts\n/clear\n/posts\n/nonsense\n/quit\nnever read\n"
    result = run("studio", str(posts), text=typed)
    lines = [re.sub("@[0-9a-f]{12}", "", line) for line in result.stdout.splitlines()]
    assert lines == [
        "   1  violates TO1 (TO1.a) under touting",
        "      scripted",
        "   2  safe under touting",
        "   3  violates TO1 (TO1.a) under touting",
        "      scripted",
        "   1  [violates] in a file",
        "   2  fine",
        "   3  [violates]",
        "3 posts",
        "0 posts",
    ]
    assert "/nonsense: unknown." in result.stderr


class Typing:
    """A studio in a process of its own, and a pipe to type into."""

    def __init__(self, place: Path, policies: Path, **settings: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stream_guard", "studio"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **os.environ,
                "STREAM_GUARD_ENGINE__KIND": "scripted",
                "STREAM_GUARD_STUDIO__SOCKET": str(place),
                "STREAM_GUARD_POLICIES__PATH": str(policies),
                **settings,
            },
        )

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def read_until(self, part: str) -> str:
        """Return the line with this part; the test's own timeout ends a wait in vain."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if part in line:
                return line.rstrip("\n")
        raise AssertionError(f"it ended without {part!r}")


@contextmanager
def typing(place: Path, policies: Path, **settings: str) -> Iterator[Typing]:
    studio = Typing(place, policies, **settings)
    try:
        yield studio
    finally:
        studio.process.kill()
        studio.process.communicate()


def test_a_saved_policy_judges_the_kept_posts_again_and_shows_what_changed(
    place: Path, policies: Path
) -> None:
    file = policies / "touting" / "policy.md"
    with typing(place, policies) as studio:
        studio.read_until("judging by touting")
        for text in ("a [violates] post", "a fine post"):
            studio.type(text)
            studio.read_until("under touting@")
        file.write_text(POLICY.replace("TO1", "TO7"))
        assert "1 of 2 verdicts changed" in studio.read_until("saved touting@")
        assert studio.read_until("->") == (
            "   1  violates TO1 (TO1.a) -> violates TO7 (TO7.a)  a [violates] post"
        )
        file.write_text("")
        assert "policy.md: empty; write the policy" in studio.read_until("policy.md")
        file.write_text(POLICY)
        assert "1 of 2 verdicts changed" in studio.read_until("saved touting@")
        studio.process.terminate()
        studio.read_until("ended by a signal")
        assert studio.process.wait(HANG_S) == ExitCode.CLEAN
    assert not place.exists()


class Screen:
    """A studio at a terminal of its own, as a person sees it."""

    def __init__(self, place: Path, policies: Path) -> None:
        self._terminal, theirs = pty.openpty()
        self.mode = termios.tcgetattr(self._terminal)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stream_guard", "studio"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={
                **os.environ,
                "TERM": "xterm",
                "COLUMNS": "80",
                "STREAM_GUARD_ENGINE__KIND": "scripted",
                "STREAM_GUARD_STUDIO__SOCKET": str(place),
                "STREAM_GUARD_POLICIES__PATH": str(policies),
            },
        )
        self._theirs = theirs
        self._unread = ""

    def press(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def read_until(self, part: str) -> str:
        """Return what is shown up to this part; the test's own timeout ends a wait in vain."""
        while part not in self._unread:
            self._unread += os.read(self._terminal, 1 << 16).decode("utf-8", "replace")
        shown, _, self._unread = self._unread.partition(part)
        return shown + part

    def ended(self) -> int:
        """Wait for the end, and return the exit code."""
        return self.process.wait(HANG_S)

    def mode_now(self) -> list[Any]:
        return termios.tcgetattr(self._terminal)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._theirs)
        os.close(self._terminal)


@pytest.fixture
def screen(place: Path, policies: Path) -> Iterator[Screen]:
    made = Screen(place, policies)
    yield made
    made.close()


def test_at_a_terminal_a_post_is_typed_judged_and_judged_again_after_a_save(
    screen: Screen, place: Path, policies: Path
) -> None:
    file = policies / "touting" / "policy.md"
    screen.read_until("starting the engine (scripted)")
    screen.read_until("A line is a post.")
    screen.read_until("> ")
    screen.press("a [violates] pots\x7f\x7f\x7f\x7fpost\n")  # mistyped, and corrected
    assert "1  violates TO1 (TO1.a) under touting@" in screen.read_until("under touting@")
    screen.read_until("> ")
    file.write_text(POLICY.replace("TO1", "TO7"))
    screen.read_until("saved touting@")
    assert "1 of 1 verdict changed" in screen.read_until("after the save")
    assert "violates TO1 (TO1.a) -> violates TO7 (TO7.a)  a [violates] post" in screen.read_until(
        "post"
    )
    screen.read_until("> ")  # the prompt comes back
    screen.press("\x1b[A\n")  # the key that brings back the last line
    assert "2  violates TO7 (TO7.a) under touting@" in screen.read_until("under touting@")
    screen.read_until("> ")
    screen.press("\x04")
    shown = screen.read_until("ended: end of input")
    assert screen.ended() == ExitCode.CLEAN
    assert "Traceback" not in shown
    assert screen.mode_now() == screen.mode
    assert not place.exists()


def test_ctrl_c_at_a_terminal_ends_a_studio_and_restores_the_terminal(
    screen: Screen, place: Path
) -> None:
    screen.read_until("A line is a post.")
    screen.read_until("> ")
    screen.press("half a po")
    screen.read_until("half a po")
    screen.process.send_signal(signal.SIGINT)
    shown = screen.read_until("ended by a signal")
    assert screen.ended() == ExitCode.CLEAN
    assert "Traceback" not in shown
    assert screen.mode_now() == screen.mode
    assert not place.exists()


def test_an_idle_studio_ends(place: Path, policies: Path) -> None:
    with typing(place, policies, STREAM_GUARD_STUDIO__IDLE_TIMEOUT_S="0.1") as studio:
        studio.read_until("ended: idle for 0.1 s (studio.idle_timeout_s)")
        assert studio.process.wait(HANG_S) == ExitCode.CLEAN
    assert not place.exists()


def test_a_killed_studio_leaves_a_place_for_the_next(place: Path, policies: Path) -> None:
    with typing(place, policies) as studio:
        studio.read_until("ready:")
    assert place.exists()
    with typing(place, policies) as studio:
        studio.read_until("ready:")
        assert (place.stat().st_mode & 0o777, place.parent.stat().st_mode & 0o777) == (0o600, 0o700)
