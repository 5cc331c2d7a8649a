"""A verdict as one line for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_guard.cli.terminal import shorten, styled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.text import Text

COLOURS: Final = {"violates": "red", "safe": "green", "undetermined": "yellow"}
_TEXT_CHARACTERS: Final = 48


_POLICY_CHARACTERS: Final = 24


def verdict_heads() -> Text:
    """Return the heads of the columns of :func:`verdict_line`."""
    names = (
        f"{'topic':<14} {'decision':<12} {'rule':<6} {'tier':<10} {'policy':<{_POLICY_CHARACTERS}} "
    )
    return styled((f"{names}{'took':>9}  post", "dim"))


def verdict_line(verdict: Mapping[str, Any], text: str | None = None) -> Text:
    """Return topic, decision, rules (or category), tier, policy version, milliseconds and the post.

    Args:
        verdict: as published.
        text: the post's, where the caller has it; verdicts hold none. Without it the line shows the post's id.
    """
    policy, source, timing = verdict["policy"], verdict["source"], verdict["timing"]
    what = shorten(verdict["content"]["id"] if text is None else text, _TEXT_CHARACTERS)
    rule = ", ".join(policy["rule_ids"]) or policy["category"] or "-"
    return styled(
        (f"{source['topic']:<14} ", "dim"),
        (f"{verdict['decision']:<12} ", COLOURS.get(verdict["decision"], "")),
        (f"{rule:<6} {verdict['provenance']['tier']:<10} ", ""),
        (f"{policy['id'] + '@' + policy['version']:<{_POLICY_CHARACTERS}} ", "dim"),
        (f"{timing['published'] - timing['consumed']:>6} ms  ", ""),
        (what, ""),
    )
