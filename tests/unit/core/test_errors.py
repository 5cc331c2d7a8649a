"""The tree of errors is the one drawn in its docstring, and each error has one exit code or one reason."""

from __future__ import annotations

import re

from stream_guard.core import errors
from stream_guard.core.exit_codes import ExitCode

_TREE = vars(errors).values()
CLASSES = [
    kind
    for kind in _TREE
    if isinstance(kind, type) and issubclass(kind, errors.StreamGuardError)
]  # fmt: skip


def drawn() -> dict[str, int | None]:
    """Return the errors of the drawing with the exit code beside each."""
    found = {}
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    [|` -]*(\w+Error)\b.*?(?:exit (\d+))?$", line):
            found[match[1]] = int(match[2]) if match[2] else None
    return found


def test_the_drawing_names_every_error() -> None:
    assert set(drawn()) == {kind.__name__ for kind in CLASSES}


def test_the_drawing_has_the_exit_codes() -> None:
    shown = {name: code for name, code in drawn().items() if code is not None}
    assert shown == {name: getattr(errors, name).exit_code for name in shown}
    assert {1, 2, 3, 4, 5, 6} == set(shown.values())


def test_each_reason_is_the_reason_of_one_error() -> None:
    # The root, and those that become no dead letter.
    others = {
        *(errors.RecordError, errors.NotAPostError, errors.DeletedPostError, errors.SettledError),
    }
    kinds = [kind for kind in CLASSES if issubclass(kind, errors.RecordError)]
    reasons = [kind.reason for kind in kinds if kind not in others]
    assert sorted(reasons) == list(errors.dead_letter_reasons())
    assert len(set(reasons)) == len(reasons)


def test_exit_codes_keep_their_numbers() -> None:
    numbers = {code.name: int(code) for code in ExitCode}
    assert numbers == {
        "CLEAN": 0,
        "UNEXPECTED": 1,
        "USAGE": 2,
        "BROKER": 3,
        "ENGINE": 4,
        "LIMIT": 5,
        "EVIDENCE": 6,
        "INTERRUPTED": 130,
    }
