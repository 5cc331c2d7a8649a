"""Edits go live whole, checked and prepared; bad ones leave the last good set alone."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import threading
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from stream_guard.core.errors import PolicyError
from stream_guard.policies import reload
from stream_guard.policies.reload import PolicyReloader, ReloadOutcome, read_whole
from stream_guard.policies.store import PolicyFiles, load_policies
from tests.hang import HANG_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from stream_guard.policies.policy import PolicySet


class Harness:
    """A reloader over a folder, with all that it did."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[str] = []
        self.outcomes: list[ReloadOutcome] = []
        self.switched: list[PolicySet] = []
        self.refusal: Exception | None = None
        self.changed = asyncio.Condition()
        self.reloader = PolicyReloader(
            folder,
            load_policies(folder),
            prepare=self.prepare,
            switch=self.switch,
            report=self.outcomes.append,
        )

    async def prepare(self, policies: PolicySet) -> None:
        self.told.append(f"prepare {policies.sha256[:6]}")
        if self.refusal is not None:
            raise self.refusal

    def switch(self, policies: PolicySet) -> None:
        self.told.append(f"switch {policies.sha256[:6]}")
        self.switched.append(policies)

    def text(self, slug: str = "spam") -> str:
        return self.reloader.live.policies[slug].text

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _watch(self) -> None:
        async for _ in reload.watch_folder(self.folder):
            await self.reloader.check()
            async with self.changed:
                self.changed.notify_all()

    async def until_text(self, text: str) -> None:
        async with asyncio.timeout(HANG_S), self.changed:
            await self.changed.wait_for(lambda: self.text() == text)

    async def until_refused(self) -> None:
        async with asyncio.timeout(HANG_S), self.changed:
            await self.changed.wait_for(lambda: self.reloader.refused is not None)


def write(folder: Path, text: str, slug: str = "spam") -> None:
    (folder / slug).mkdir(parents=True, exist_ok=True)
    (folder / slug / "policy.md").write_text(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "policies"
    write(path, "one")
    (path / "routes.yaml").write_text("default: [spam]\n")
    return path


async def test_nothing_is_done_where_nothing_changed(folder: Path) -> None:
    harness = Harness(folder)
    assert await harness.reloader.check() is None
    assert harness.told == []


async def test_edit_is_prepared_before_it_goes_live(folder: Path) -> None:
    harness = Harness(folder)
    write(folder, "two")
    outcome = await harness.reloader.check()
    assert outcome is not None
    assert (outcome.kind, outcome.changed) == ("switched", ("spam",))
    short = outcome.sha256[:6]
    assert harness.told == [f"prepare {short}", f"switch {short}"]
    assert harness.text() == "two"


async def test_change_of_routes_alone_goes_live(folder: Path) -> None:
    harness = Harness(folder)
    (folder / "routes.yaml").write_text("default: [spam]\ntopics: {t: [spam]}\n")
    outcome = await harness.reloader.check()
    assert outcome is not None
    assert (outcome.kind, outcome.changed) == ("switched", ())
    assert harness.reloader.live.topics == {"t": ("spam",)}


async def test_policy_that_comes_and_one_that_goes_are_named(folder: Path) -> None:
    write(folder, "x", "lies")
    harness = Harness(folder)
    write(folder, "y", "rude")
    shutil.rmtree(folder / "lies")
    outcome = await harness.reloader.check()
    assert outcome is not None
    assert set(outcome.changed) == {"lies", "rude"}


@pytest.mark.parametrize("bad", ["", "control <|end|> token"])
async def test_bad_edit_is_refused_once_and_the_last_good_set_stays(folder: Path, bad: str) -> None:
    harness = Harness(folder)
    write(folder, bad)
    outcome = await harness.reloader.check()
    assert outcome is not None
    assert outcome.kind == "refused"
    assert str(folder / "spam" / "policy.md") in outcome.message
    assert harness.reloader.refused == outcome.message
    assert harness.text() == "one"
    assert await harness.reloader.check() is None
    assert harness.told == []


async def test_missing_folder_is_refused_once(folder: Path) -> None:
    harness = Harness(folder)
    shutil.rmtree(folder)
    outcome = await harness.reloader.check()
    assert outcome is not None
    assert outcome.kind == "refused"
    assert await harness.reloader.check() is None


async def test_mended_edit_goes_live(folder: Path) -> None:
    harness = Harness(folder)
    write(folder, "")
    await harness.reloader.check()
    write(folder, "two")
    await harness.reloader.check()
    assert harness.reloader.refused is None
    assert harness.text() == "two"


async def test_bad_edit_taken_back_needs_no_switch(folder: Path) -> None:
    harness = Harness(folder)
    write(folder, "")
    await harness.reloader.check()
    write(folder, "one")
    outcome = await harness.reloader.check()
    assert outcome is not None
    assert outcome.kind == "restored"
    assert harness.reloader.refused is None
    assert harness.told == []


async def test_set_that_cannot_be_prepared_is_refused(folder: Path) -> None:
    harness = Harness(folder)
    harness.refusal = PolicyError("the grammar does not compile")
    write(folder, "two")
    outcome = await harness.reloader.check()
    assert outcome is not None
    assert (outcome.kind, outcome.message) == ("refused", "the grammar does not compile")
    assert harness.switched == []
    assert harness.text() == "one"


async def test_engine_that_fails_while_preparing_ends_the_watch(folder: Path) -> None:
    harness = Harness(folder)
    harness.refusal = RuntimeError("the engine died")

    async def once() -> AsyncIterator[None]:
        yield

    write(folder, "two")
    with pytest.raises(RuntimeError, match="the engine died"):
        await harness.reloader.run(once())
    assert harness.text() == "one"


async def test_200_random_edits_end_with_the_last_good_set_live(folder: Path) -> None:
    """A third are broken in one of several ways; each is looked at."""
    chance = random.Random(7)  # noqa: S311 - a seed, no secret
    harness = Harness(folder)
    good, existed, refused = "one", {load_policies(folder).sha256}, 0
    for number in range(200):
        if chance.random() < 1 / 3:
            breakage = chance.choice(["", "a <|start|> b", "route", "bytes"])
            if breakage == "route":
                write(folder, f"text {number}")
                (folder / "routes.yaml").write_text("default: [nowhere]\n")
            elif breakage == "bytes":
                (folder / "spam" / "policy.md").write_bytes(b"\xff")
            else:
                write(folder, breakage)
            refused += 1
        else:
            good = f"text {number}"
            write(folder, good)
            (folder / "routes.yaml").write_text("default: [spam]\n")
            existed.add(load_policies(folder).sha256)
        await harness.reloader.check()
        assert harness.text() == good
    assert refused > 40
    assert {policies.sha256 for policies in harness.switched} <= existed


async def test_burst_of_edits_under_the_watch_ends_with_the_last_good_set(folder: Path) -> None:
    chance = random.Random(11)  # noqa: S311 - a seed, no secret
    harness = Harness(folder)
    texts = [f"text {n}" if chance.random() < 2 / 3 else "bad <|end|>" for n in range(200)]
    async with harness.watching():
        for text in [*texts, "the last"]:
            await asyncio.to_thread(write, folder, text)
        await harness.until_text("the last")
    # A write empties the file before it fills it; nothing half written ever went live.
    assert {p.policies["spam"].text for p in harness.switched} <= {*texts, "the last"} - {
        "bad <|end|>"
    }


async def test_watch_sees_a_plain_edit(folder: Path) -> None:
    harness = Harness(folder)
    async with harness.watching():
        write(folder, "two")
        await harness.until_text("two")


async def test_watch_sees_an_editors_rename(folder: Path) -> None:
    harness = Harness(folder)
    async with harness.watching():
        (folder / "spam" / "policy.md~").write_text("two")
        (folder / "spam" / "policy.md~").replace(folder / "spam" / "policy.md")
        await harness.until_text("two")


async def test_watch_sees_a_bad_edit_and_its_mending(folder: Path) -> None:
    harness = Harness(folder)
    async with harness.watching():
        write(folder, "")
        await harness.until_refused()
        write(folder, "two")
        await harness.until_text("two")
    assert [outcome.kind for outcome in harness.outcomes] == ["refused", "switched"]


def swap(link: Path, target: str) -> None:
    """Point a symlink elsewhere at once, as Kubernetes does."""
    new = link.with_name(link.name + "_tmp")
    new.symlink_to(target)
    os.replace(new, link)  # noqa: PTH105 - Path.replace is the same, but follows no clearer


async def test_watch_sees_the_swap_of_a_config_map(tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    for moment, text in (("..2024", "one"), ("..2025", "two")):
        write(folder / moment, text)
    (folder / "..data").symlink_to("..2024")
    (folder / "spam").symlink_to("..data/spam")
    harness = Harness(folder)
    async with harness.watching():
        swap(folder / "..data", "..2025")
        shutil.rmtree(folder / "..2024")
        await harness.until_text("two")


async def test_watch_sees_the_swap_of_the_folder_itself(tmp_path: Path) -> None:
    for release, text in (("1", "one"), ("2", "two")):
        write(tmp_path / "releases" / release, text)
    current = tmp_path / "current"
    current.symlink_to("releases/1")
    harness = Harness(current)
    async with harness.watching():
        swap(current, "releases/2")
        await harness.until_text("two")


async def test_watch_sees_an_edit_that_sends_no_notification(tmp_path: Path) -> None:
    """An edit through a hard link is not reported in the other folder."""
    write(tmp_path / "elsewhere", "one")
    (tmp_path / "policies" / "spam").mkdir(parents=True)
    file = tmp_path / "policies" / "spam" / "policy.md"
    file.hardlink_to(tmp_path / "elsewhere" / "spam" / "policy.md")
    harness = Harness(tmp_path / "policies")
    async with harness.watching():
        write(tmp_path / "elsewhere", "two, longer")
        await harness.until_text("two, longer")


async def test_named_pipe_is_refused_and_the_next_edit_goes_live(folder: Path) -> None:
    harness = Harness(folder)
    file = folder / "spam" / "policy.md"
    file.unlink()
    os.mkfifo(file)
    try:
        async with asyncio.timeout(HANG_S):
            outcome = await harness.reloader.check()
    finally:
        pipe = os.open(file, os.O_RDWR)
        file.unlink()
        write(folder, "two")
        os.close(pipe)  # ends a reader that blocks
    assert outcome is not None
    assert outcome.kind == "refused"
    assert outcome.message.startswith(f"{file}: a named pipe")
    await harness.reloader.check()
    assert harness.text() == "two"


async def test_watch_survives_the_folders_being_replaced(folder: Path) -> None:
    harness = Harness(folder)
    async with harness.watching():
        shutil.rmtree(folder)
        await harness.until_refused()
        write(folder, "two")
        await harness.until_text("two")


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)  # noqa: S607


async def test_watch_sees_a_git_pull(tmp_path: Path) -> None:
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    write(origin, "one")
    git(origin, "init", "-q")
    git(origin, "add", "-A")
    git(origin, "commit", "-qm", "one")
    git(tmp_path, "clone", "-q", str(origin), str(clone))
    harness = Harness(clone)
    write(origin, "two")
    git(origin, "commit", "-qam", "two")
    async with harness.watching():
        await asyncio.to_thread(git, clone, "pull", "-q")
        await harness.until_text("two")


def readings(monkeypatch: pytest.MonkeyPatch, *texts: bytes) -> list[bytes]:
    """Have the folder read as these, in turn, the last for ever."""
    left = list(texts)

    def read(path: Path) -> PolicyFiles:
        text = left.pop(0) if len(left) > 1 else left[0]
        if not text:
            message = "half written"
            raise PolicyError(message)
        return PolicyFiles(path, {"spam": text})

    monkeypatch.setattr(reload, "read_policy_files", read)
    return left


def test_reading_that_the_next_one_contradicts_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    readings(monkeypatch, b"old", b"", b"new")
    files = read_whole(tmp_path)
    assert files is not None
    assert files.policies == {"spam": b"new"}


def test_folder_that_does_not_stop_changing_is_left_for_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    readings(monkeypatch, *(str(n).encode() for n in range(100)))
    assert read_whole(tmp_path) is None


async def test_a_folder_that_does_not_answer_is_refused_and_read_again_once_it_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(folder)
    answers = threading.Event()
    monkeypatch.setattr(reload, "_READ_TIMEOUT_S", 0.01)

    def hangs(path: Path) -> PolicyFiles | None:
        answers.wait()
        return read_whole(path)

    monkeypatch.setattr(reload, "read_whole", hangs)
    first = await harness.reloader.check()
    assert first is not None
    assert first.kind == "refused"
    assert "policies.path: no answer within 0.01 s" in first.message
    second = await harness.reloader.check()
    assert second is not None
    assert "an earlier call has not returned yet" in second.message
    answers.set()
    monkeypatch.setattr(reload, "_READ_TIMEOUT_S", HANG_S)
    async with asyncio.timeout(HANG_S):
        while harness.reloader.refused is not None:
            await harness.reloader.check()
            await asyncio.sleep(0)
    assert harness.outcomes[-1].kind == "restored"
