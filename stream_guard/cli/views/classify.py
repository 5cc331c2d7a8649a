"""A verdict, and what was said with the model, as lines for a person at a terminal. Pure.

What it must never do: pass on text that steers a terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from stream_guard.cli.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stream_guard.judging.families.harmony.transcript import Exchange
    from stream_guard.policies.policy import Policy

__all__ = ["exchange_lines", "verdict_lines"]

_COLOURS: Final = {"violates": "bold red", "safe": "bold green", "undetermined": "bold yellow"}
_TEXT_CHARACTERS: Final = 72
_NO_EXCHANGE: Final = "no model was asked: the trail says which tier settled the post"


def verdict_lines(verdict: Mapping[str, Any], policy: Policy, text: str) -> Iterator[Text]:
    """Yield decision, category, rules, rationale, confidence, tokens and the way through the tiers.

    Args:
        verdict: as published.
        policy: that it was made under.
        text: the post's.
    """
    judged, provenance = verdict["policy"], verdict["provenance"]
    head = Text()
    head.append(f"{verdict['decision']:<12} ", style=_COLOURS.get(verdict["decision"], ""))
    head.append(f"{judged['id']}@{judged['version']}", style="dim")
    yield head
    shown = " ".join(printable(text).split())
    if len(shown) > _TEXT_CHARACTERS:
        shown = shown[: _TEXT_CHARACTERS - 1] + "…"
    yield _line("post", f"{printable(verdict['content']['id'])}: {shown}")
    category = policy.taxonomy.category(judged["category"]) if judged["category"] else None
    if category is not None:
        named = f"{category.code} {category.title}".strip()
        yield _line(
            "category", printable(named) + (f" ({category.severity})" if category.severity else "")
        )
    if judged["rule_ids"]:
        yield _line("rules", ", ".join(judged["rule_ids"]))
    review = "; a person should look" if verdict["needs_review"] else ""
    yield _line("action", verdict["action"] + review)
    if judged["rationale"]:
        yield _line("rationale", printable(judged["rationale"]))
    confidence = verdict["confidence"]
    if confidence["value"] is not None:
        raw = (
            f", {confidence['raw']:.3f} before" if confidence["raw"] != confidence["value"] else ""
        )
        yield _line(
            "confidence",
            f"{confidence['value']:.3f} that it violates ({confidence['method']}{raw})",
        )
    attempts = f", {provenance['attempts']} attempts" if provenance["attempts"] > 1 else ""
    yield _line(
        "tokens",
        f"{provenance['prompt_tokens']:,} in, of which {provenance['cached_tokens']:,} cached; "
        f"{provenance['output_tokens']:,} out{attempts}",
    )
    yield _line(
        "answer",
        f"{provenance['parse_status']}; by {provenance['tier']}, {printable(provenance['model'])}",
    )
    for number, step in enumerate(provenance["trail"]):
        effort = f" at {step['effort']} effort" if step["effort"] else ""
        yield _line(
            "" if number else "trail",
            f"{step['tier']}{effort}: {step['outcome']}, {printable(step['reason'])}, "
            f"{step['duration_us'] / 1_000:,.1f} ms",
        )


def exchange_lines(exchanges: Sequence[Exchange]) -> Iterator[Text]:
    """Yield each attempt's prompt, reasoning and answer, as they are read."""
    if not exchanges:
        yield Text(_NO_EXCHANGE, style="dim")
        return
    for number, exchange in enumerate(exchanges, 1):
        count = f"attempt {number} of {len(exchanges)}, at {exchange.effort} effort"
        yield Text(f"── prompt ({count}, {exchange.prompt_tokens:,} tokens) ──", style="bold")
        yield Text(printable(exchange.prompt))
        yield Text("── reasoning ──", style="bold")
        yield Text(printable(exchange.analysis) or "none")
        yield Text(f"── completion ({exchange.completion_tokens:,} tokens) ──", style="bold")
        yield Text(printable(exchange.completion))


def _line(name: str, value: str) -> Text:
    line = Text("  ")
    line.append(f"{name:<11}", style="dim")
    line.append(value)
    return line
