"""Starts a Python module as a process that ends with this one, even where this one is killed."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

import orjson

from stream_guard.testing.broker.node import WATCHDOG

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Mapping, Sequence

__all__ = ["start_module"]


async def start_module(
    words: Sequence[str],
    variables: Mapping[str, str],
    ends: contextlib.ExitStack,
    **options: Any,  # noqa: ANN401 - those of asyncio.create_subprocess_exec
) -> asyncio.subprocess.Process:
    """Return the process of a watchdog that runs ``python -m WORDS`` and kills it once this process is gone.

    Args:
        words: the module and its arguments.
        variables: the whole environment of the process.
        ends: closes the pipe by which the watchdog sees that this process lives; closed here if the start fails.
        options: passed on to :func:`asyncio.create_subprocess_exec`.
    """
    reader, writer = os.pipe()
    ends.callback(os.close, reader)
    ends.callback(os.close, writer)
    command = orjson.dumps([[sys.executable, "-m", *words]]).decode()
    try:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", WATCHDOG, str(reader), "", command),
            env=dict(variables),
            pass_fds=(reader,),
            start_new_session=True,
            **options,
        )
    except BaseException:
        ends.close()
        raise
