"""A verdict as one line for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

COLOURS: Final = {"violates": "red", "safe": "green", "undetermined": "yellow"}
_TEXT_CHARACTERS: Final = 48


def verdict_line(verdict: Mapping[str, Any], text: str | None = None) -> Text:
    """Return topic, decision, rules (or category), tier, policy version, milliseconds and what the post is.

    Args:
        verdict: as published.
        text: of the post, where the caller has it; verdicts carry none. Its id is shown otherwise.
    """
    policy, source, timing = verdict["policy"], verdict["source"], verdict["timing"]
    what = verdict["content"]["id"] if text is None else " ".join(text.split())
    if len(what) > _TEXT_CHARACTERS:
        what = what[: _TEXT_CHARACTERS - 1] + "…"
    line = Text()
    line.append(f"{source['topic']:<14} ", style="dim")
    line.append(f"{verdict['decision']:<12} ", style=COLOURS.get(verdict["decision"], ""))
    rule = ", ".join(policy["rule_ids"]) or policy["category"] or "-"
    line.append(f"{rule:<6} {verdict['provenance']['tier']:<10} ")
    line.append(f"{policy['id']}@{policy['version']} ", style="dim")
    line.append(f"{timing['published'] - timing['consumed']:>6} ms  ")
    line.append(what)
    return line
