"""Splits the time of a thread between named parts of a program, by wrapping functions.

A function's own time goes to its part; time in wrapped functions that it calls goes to theirs.
"""

from __future__ import annotations

import functools
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

REST = "other"
"""The part of what no wrapped function did."""


class Parts:
    """A clock for each part; it runs in the thread that made it.

    Args:
        now_s: the time, in s.
    """

    def __init__(self, now_s: Callable[[], float] = time.perf_counter) -> None:
        self._now_s = now_s
        self._thread = threading.get_ident()
        self._spent: dict[str, float] = {}
        self._open: list[str] = []
        self._since_s = now_s()

    def _charge(self) -> None:
        now_s = self._now_s()
        part = self._open[-1] if self._open else REST
        self._spent[part] = self._spent.get(part, 0.0) + now_s - self._since_s
        self._since_s = now_s

    def restart(self) -> None:
        """Set every clock to zero."""
        self._charge()
        self._spent.clear()

    def spent_s(self) -> dict[str, float]:
        """Return the seconds of each part since the last restart."""
        self._charge()
        return dict(self._spent)

    def wrap(self, owner: Any, name: str, part: str) -> None:
        """Count what a function of ``owner`` does as a part."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def wrapped(*args: Any, **named: Any) -> Any:
            if threading.get_ident() != self._thread:
                return function(*args, **named)
            self._charge()
            self._open.append(part)
            try:
                return function(*args, **named)
            finally:
                self._charge()
                self._open.pop()

        static = isinstance(owner, type) and isinstance(owner.__dict__.get(name), staticmethod)
        setattr(owner, name, staticmethod(wrapped) if static else wrapped)
