"""Runs commands that judge by the real engine in this process, which imports vLLM once for all of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from typer.testing import CliRunner, Result

from stream_guard.cli.main import app

if TYPE_CHECKING:
    from pathlib import Path


def judging_command(model: Path, *arguments: str, **settings: str) -> Result:
    """Run a command; what it raises is in ``exception``.

    Args:
        model: the folder of the engine's model.
        arguments: of ``stream-guard``.
        settings: further ones, by the name of their environment variable.
    """
    foreign = {name: None for name in os.environ if name.startswith("STREAM_GUARD_")}
    environment = {
        **foreign,
        "STREAM_GUARD_ENGINE__MODEL": str(model),
        # Random weights write no answer by themselves: an attempt without the grammar would only take time.
        "STREAM_GUARD_ENGINE__CONSTRAINT": "always",
        "STREAM_GUARD_ENGINE__MAX_NUM_SEQS": "16",
        **settings,
    }
    return CliRunner().invoke(app, list(arguments), env=environment)
