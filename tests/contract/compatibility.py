"""The rule of compatibility: what a minor version may change in what is written, so that old readers keep working.

It may add fields, and say more exactly what a field holds. It may not take a field away or make it optional, change or
widen a type, add a value to an enumeration, change a constant other than the minor version, loosen a pattern or a
bound, or rename anything.
"""

from __future__ import annotations

import re
from typing import Any

_VERSION = re.compile(r"((?:.*:)?\d+)\.(\d+)")
_MEANS = ("type", "enum", "const", "pattern", "minimum", "maximum", "minLength", "format", "$ref")


def breaking_changes(old: Any, new: Any, path: str = "") -> list[str]:  # noqa: ANN401
    """Return a line for each change from one JSON Schema to another that breaks a reader of the old one.

    Only what our own schemas use is understood: a changed keyword of another kind counts as breaking.
    """
    where = path or "the document"
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [f"{where}: {old!r} became {new!r}"]
    found = [
        f"{where}: {name} {old[name]!r} became {new.get(name)!r}"
        for name in _MEANS
        if name in old and not _narrower(name, old[name], new.get(name))
    ]
    optional = sorted(set(old.get("required", ())) - set(new.get("required", ())))
    found += [f"{where}: {name!r} is no longer always there" for name in optional]
    for name, schema in old.get("properties", {}).items():
        deeper = f"{path}/{name}"
        if name not in new.get("properties", {}):
            found.append(f"{deeper}: gone")
        else:
            found += breaking_changes(schema, new["properties"][name], deeper)
    for name in ("items", "$defs", "anyOf"):
        if name in old:
            found += _deeper(old[name], new.get(name), f"{path}/{name}")
    return found


def _deeper(old: Any, new: Any, path: str) -> list[str]:  # noqa: ANN401
    if isinstance(old, list):
        return [] if old == new else [f"{path}: {old!r} became {new!r}"]
    if "type" in old or "$ref" in old:
        return breaking_changes(old, new, path)
    found: list[str] = []
    for name, schema in old.items():
        found += breaking_changes(schema, (new or {}).get(name), f"{path}/{name}")
    return found


def _narrower(name: str, old: Any, new: Any) -> bool:  # noqa: ANN401
    """Whether all that the new keyword admits, the old one admitted."""
    if new == old:
        return True
    if new is None:
        return False
    if name in ("type", "enum"):
        return set(_listed(new)) <= set(_listed(old))
    if name in ("const", "$ref"):
        return _is_later_minor(old, new)
    if name in {"minimum", "minLength"}:
        return bool(new >= old)
    return bool(name == "maximum" and new <= old)


def _listed(value: Any) -> list[Any]:  # noqa: ANN401
    return value if isinstance(value, list) else [value]


def _is_later_minor(old: Any, new: Any) -> bool:  # noqa: ANN401
    """Whether both end in a version of one major, and the new one's minor is greater."""
    before, after = (_VERSION.fullmatch(str(each)) for each in (old, new))
    if before is None or after is None:
        return False
    return before[1] == after[1] and int(after[2]) > int(before[2])
