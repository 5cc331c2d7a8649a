"""``stream-guard console`` refuses at its start what it could only fail at later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from stream_guard.cli import console
from stream_guard.cli.main import app
from stream_guard.core.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from stream_guard.settings import Settings


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[bool]:
    """Say by ``console.commit`` which consoles began to serve, on a machine without programs."""
    begun: list[bool] = []

    async def serve(settings: Settings) -> None:
        begun.append(settings.console.commit)

    monkeypatch.setattr(console, "_serve", serve)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return begun


def test_commits_without_git_are_refused(
    served: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAM_GUARD_CONSOLE__COMMIT", "true")
    refused = CliRunner().invoke(app, ["console"]).exception
    assert isinstance(refused, SettingsError)
    assert str(refused).startswith("console.commit (STREAM_GUARD_CONSOLE__COMMIT): the program git")
    assert served == []


def test_commits_with_git_are_served(
    served: list[bool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STREAM_GUARD_CONSOLE__COMMIT", "true")
    (tmp_path / "git").touch(mode=0o755)
    assert CliRunner().invoke(app, ["console"]).exit_code == 0
    assert served == [True]


def test_without_commits_no_git_is_needed(served: list[bool]) -> None:
    assert CliRunner().invoke(app, ["console"]).exit_code == 0
    assert served == [False]
