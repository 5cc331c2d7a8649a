"""``stream-guard studio``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from stream_guard.cli.options import ConfigOption, PathOption, PostTopicOption, complete_policy
from stream_guard.cli.policy_folder import find_policy, load_folder
from stream_guard.cli.posts import read_posts, settings_of_topic, text_line
from stream_guard.cli.terminal import (
    at_terminal,
    count_of,
    say,
    say_unfinished,
    shorten,
    show_status,
    stdout_kept_clean,
    warn,
)
from stream_guard.cli.typed_lines import PROMPT, typed_lines
from stream_guard.core.errors import SettingsError
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_guard.offline.studio.studio import Saved, Studio
    from stream_guard.records.post import Post
    from stream_guard.settings import PostSettings

FileArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE.jsonl]", help="Posts to begin with, a record's value a line."),
]
PolicyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        metavar="SLUG",
        help="Judge by this policy; may be repeated. Default: every policy of the folder.",
        autocompletion=complete_policy,
    ),
]
PromptOption = Annotated[
    bool,
    typer.Option(
        "--prompt/--no-prompt",
        help="Read posts from standard input, and end with it; or only serve other commands.",
    ),
]
_TEXT_CHARACTERS: Final = 60
_HELP: Final = "A line is a post. /posts lists the kept posts, /clear drops them, /quit ends."


def studio(
    file: FileArgument = None,
    policy: PolicyOption = None,
    path: PathOption = None,
    config: ConfigOption = None,
    topic: PostTopicOption = None,
    *,
    prompt: PromptOption = True,
) -> None:
    """Keep an engine warm: judge what you type, and again whenever a policy is saved.

    classify, eval, policies attack and policies calibrate of the same user find this engine and use it, if it has
    their model and settings. It ends when nobody has used it for studio.idle_timeout_s.
    """
    from stream_guard.offline.studio.studio import Studio
    from stream_guard.telemetry.logs import configure_logs

    settings = load_settings(config)
    configure_logs(settings.telemetry)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    folder, policies = load_folder(path, config)
    slugs = [find_policy(policies, slug).id for slug in dict.fromkeys(policy or ())]
    how = settings_of_topic(settings, topic)
    posts = [] if file is None else _read(file, how)
    view = _View()
    runs = Studio(settings, folder, policies, slugs, view.show_saved)

    @contextlib.contextmanager
    def starting() -> Iterator[None]:
        engine = settings.engine
        name = engine.model if engine.kind == "vllm" else engine.kind
        with stdout_kept_clean(), show_status(f"starting the engine ({name})"):
            yield

    async def talk(running: Studio) -> str:
        await view.begin(running, posts)
        if prompt:
            return await view.talk(running, how)
        await asyncio.get_running_loop().create_future()  # the other ends are those of the studio
        return ""

    warn(asyncio.run(runs.run(starting, talk)))


def _read(file: Path, settings: PostSettings) -> list[Post]:
    if file.suffix != ".jsonl":
        message = f"{file}: not a .jsonl file; write a record's value on each line"
        raise SettingsError(message)
    posts = []
    for line in read_posts(str(file), settings):
        if line.post is None:
            message = f"{file}:{line.number}: not a post: {line.fault}"
            raise SettingsError(message)
        posts.append(line.post)
    return posts


class _View:
    """What the author sees."""

    def __init__(self) -> None:
        self._prompts = False

    async def begin(self, running: Studio, posts: list[Post]) -> None:
        """Say that the studio is ready, and judge the posts to begin with."""
        names = ", ".join(policy.id for policy in running.workbench.policies)
        warn(
            f"ready: classify, eval, policies attack and policies calibrate use this engine ({running.path})"
        )
        warn(f"judging by {names}; save a policy to judge the kept posts again")
        if posts:
            await self._judge(running, posts)

    async def talk(self, running: Studio, settings: PostSettings) -> str:
        """Judge each line until the end of input or ``/quit``."""
        self._prompts = sys.stdin.isatty() and at_terminal()
        if self._prompts:
            warn(_HELP)
        async for line in typed_lines():
            running.note_activity()
            match line.strip():
                case "":
                    pass
                case "/quit":
                    break
                case "/clear":
                    running.workbench.clear()
                case "/posts":
                    for kept in running.workbench.kept:
                        say(f"{kept.number:>4}  {shorten(kept.post.text, _TEXT_CHARACTERS)}")
                    say(count_of(len(running.workbench.kept), "post"))
                case command if command.startswith("/"):
                    warn(f"{command.split()[0]}: unknown. {_HELP}")
                case text:
                    read = text_line("typed", text, settings)
                    if read.post is None:
                        warn(str(read.fault))
                    else:
                        await self._judge(running, [read.post])
        return "ended: end of input"

    async def _judge(self, running: Studio, posts: list[Post]) -> None:
        from stream_guard.offline.studio.workbench import outcome_of

        for kept, judgement in await running.workbench.add(posts):
            fault = f": {judgement.error}" if judgement.error is not None else ""
            rationale = judgement.answer.rationale if judgement.answer is not None else None
            policy = judgement.request.policy
            say(
                f"{kept.number:>4}  {outcome_of(judgement)} under {policy.id}@{policy.version}{fault}"
            )
            if rationale:
                say(f"      {rationale}")

    def show_saved(self, saved: Saved) -> None:
        """Show what a new version of a policy changed, and give the prompt back."""
        if self._prompts:
            say()
        if saved.refused is not None:
            warn("the last good version stays:")
            for line in saved.refused.splitlines():
                warn(f"  {line}")
        for revision in saved.revisions:
            policy = revision.policy
            judged = f"{len(revision.changes)} of {count_of(revision.posts, 'verdict')} changed"
            say(
                f"saved {policy.id}@{policy.version}: {judged}, {saved.seconds or 0:.2f} s after the save"
            )
            for kept, before, after in revision.changes:
                say(
                    f"{kept.number:>4}  {before} -> {after}  {shorten(kept.post.text, _TEXT_CHARACTERS)}"
                )
        if self._prompts:
            say_unfinished(PROMPT)
