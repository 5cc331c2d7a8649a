"""Turns the project's plain data (dataclasses and named tuples) into JSON values and back. Pure.

Each object carries the name of its class, so a field that is added to a class needs no change here.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any, Final

__all__ = ["from_plain", "to_plain"]

_PACKAGE: Final = "stream_guard."
_CLASS: Final = "~class"


def to_plain(value: Any) -> Any:  # noqa: ANN401 - any plain data
    """Return a JSON value: objects become tables with their class, tuples become lists.

    Raises:
        TypeError: a class of another package that JSON does not have.
    """
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    kind = type(value)
    if is_dataclass(kind):
        names = [field.name for field in fields(kind)]
    elif isinstance(value, tuple) and hasattr(kind, "_fields"):
        names = list(kind._fields)
    elif isinstance(value, (list, tuple)):
        return [to_plain(each) for each in value]
    elif isinstance(value, dict):
        return {name: to_plain(each) for name, each in value.items()}
    else:
        raise TypeError(f"{kind.__name__} is no plain data")
    if not kind.__module__.startswith(_PACKAGE):
        raise TypeError(f"{kind.__name__} is of another package")
    plain = {name: to_plain(getattr(value, name)) for name in names}
    return {_CLASS: f"{kind.__module__}:{kind.__name__}", **plain}


def from_plain(value: Any) -> Any:  # noqa: ANN401 - any plain data
    """Return what :func:`to_plain` was given; lists become tuples.

    Raises:
        ValueError: a class that is none of this package's plain data.
        TypeError: fields that the class does not have.
    """
    if isinstance(value, list):
        return tuple(from_plain(each) for each in value)
    if not isinstance(value, dict):
        return value
    content = {name: from_plain(each) for name, each in value.items() if name != _CLASS}
    return _class_of(str(value[_CLASS]))(**content) if _CLASS in value else content


def _class_of(name: str) -> Any:  # noqa: ANN401 - a class
    module, _, kind_name = name.partition(":")
    if module.startswith(_PACKAGE):
        kind = getattr(import_module(module), kind_name, None)
        if isinstance(kind, type) and (is_dataclass(kind) or hasattr(kind, "_fields")):
            return kind
    raise ValueError(f"{name[:80]} is no plain data of this package")
