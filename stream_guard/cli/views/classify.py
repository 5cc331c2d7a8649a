"""Shows a verdict, and the conversation with the model, as lines for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_guard.cli.terminal import shorten, styled
from stream_guard.core.english import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.text import Text

    from stream_guard.judging.families.family import Exchange
    from stream_guard.policies.policy import Policy

__all__ = ["exchange_lines", "verdict_lines"]

_COLOURS: Final = {"violates": "bold red", "safe": "bold green", "undetermined": "bold yellow"}
_TEXT_CHARACTERS: Final = 72
_NO_EXCHANGE: Final = "no model was asked: the trail says which tier settled the post"


def verdict_lines(verdict: Mapping[str, Any], policy: Policy, text: str) -> Iterator[Text]:
    """Yield decision, category, rules, rationale, confidence, tokens and the path through the tiers.

    Args:
        verdict: as published.
        policy: that judged.
        text: the post's.
    """
    judged = verdict["policy"]
    decision = (f"{verdict['decision']:<12} ", _COLOURS.get(verdict["decision"], ""))
    yield styled(decision, (f"{judged['id']}@{judged['version']}", "dim"))
    yield _line("post", f"{verdict['content']['id']}: {shorten(text, _TEXT_CHARACTERS)}")
    yield from _decision_lines(verdict, policy)
    yield from _provenance_lines(verdict["provenance"])


def _decision_lines(verdict: Mapping[str, Any], policy: Policy) -> Iterator[Text]:
    judged, confidence = verdict["policy"], verdict["confidence"]
    category = policy.taxonomy.category(judged["category"]) if judged["category"] else None
    if category is not None:
        severity = f" ({category.severity})" if category.severity else ""
        yield _line("category", f"{category.code} {category.title}".strip() + severity)
    if judged["rule_ids"]:
        yield _line("rules", ", ".join(judged["rule_ids"]))
    review = "; needs human review" if verdict["needs_review"] else ""
    yield _line("action", verdict["action"] + review)
    if judged["rationale"]:
        yield _line("rationale", judged["rationale"])
    value, raw = confidence["value"], confidence["raw"]
    if value is not None:
        before = f", {raw:.3f} before" if raw != value else ""
        yield _line("confidence", f"{value:.3f} that it violates ({confidence['method']}{before})")


def _provenance_lines(provenance: Mapping[str, Any]) -> Iterator[Text]:
    attempts = f", {provenance['attempts']} attempts" if provenance["attempts"] > 1 else ""
    yield _line(
        "tokens",
        f"{provenance['prompt_tokens']:,} in, of which {provenance['cached_tokens']:,} cached; "
        f"{provenance['output_tokens']:,} out{attempts}",
    )
    yield _line(
        "answer", f"{provenance['parse_status']}; by {provenance['tier']}, {provenance['model']}"
    )
    for number, step in enumerate(provenance["trail"]):
        effort = f" at {step['effort']} effort" if step["effort"] else ""
        yield _line(
            "" if number else "trail",
            f"{step['tier']}{effort}: {step['outcome']}, {step['reason']}, "
            f"{step['duration_us'] / 1_000:,.1f} ms",
        )


def exchange_lines(exchanges: Sequence[Exchange]) -> Iterator[Text]:
    """Yield each attempt's prompt, reasoning and answer."""
    if not exchanges:
        yield styled((_NO_EXCHANGE, "dim"))
        return
    for number, exchange in enumerate(exchanges, 1):
        count = f"attempt {number} of {len(exchanges)}, at {exchange.effort} effort"
        for head, body in (
            (f"prompt ({count}, {count_of(exchange.prompt_tokens, 'token')})", exchange.prompt),
            ("reasoning", exchange.analysis or "none"),
            (f"completion ({count_of(exchange.completion_tokens, 'token')})", exchange.completion),
        ):
            yield styled((f"── {head} ──", "bold"))
            for line in body.split("\n"):
                yield styled((line, ""))


def _line(name: str, value: str) -> Text:
    return styled((f"  {name:<11}", "dim"), (value, ""))
