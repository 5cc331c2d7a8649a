"""Puts the figures of a review queue together, and exports decisions as a golden set that ``eval`` reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_guard.offline.review.figures import Row, agreement, qualities

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from stream_guard.offline.review.queue import ReviewQueue

__all__ = ["final_decision", "golden_name", "golden_rows", "report"]


def final_decision(made: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the decision that counts: the latest one which has an outcome; None where none has."""
    decided = [decision for decision in made if decision["outcome"] is not None]
    return decided[-1] if decided else None


def golden_name(content: Mapping[str, Any]) -> str:
    """Return the id of a golden row: of the content and its text, so that an edited post has a row of its own."""
    return f"{content['id']}:{content['sha256'][:12]}"


def _final(made: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the outcome that counts."""
    decision = final_decision(made)
    return None if decision is None else decision["outcome"]


def _rows(
    items: Iterable[Mapping[str, Any]], made_of: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[Row]:
    rows = []
    for item in items:
        if not item["sample_share"]:
            continue
        verdict, outcome = item["verdict"], _final(made_of.get(item["id"], ()))
        person = None if outcome is None else outcome["decision"]
        category = None if outcome is None else outcome["category"]
        rows.append(
            Row(
                item["policy"]["id"],
                verdict["decision"],
                verdict["category"],
                item["sample_share"],
                person,
                category,
            )
        )
    return rows


def report(queue: ReviewQueue, *, since_ms: int = 0) -> dict[str, Any]:
    """Return the counts of items, the quality by policy and category, and the agreement between people.

    Args:
        queue: the queue.
        since_ms: quality and agreement are of verdicts that were published from then on, Unix time in ms.
    """
    reviewed = [pair for pair in queue.reviewed() if pair[0]["created_at"] >= since_ms]
    sampled = [item for item in queue.sampled() if item["created_at"] >= since_ms]
    made_of = {item["id"]: made for item, made in reviewed}
    said = [
        (
            item["policy"]["id"],
            [
                (one["decided_by"]["id"], one["outcome"]["decision"])
                for one in made
                if one["outcome"] is not None and one["decided_by"]["role"] != "system"
            ],
        )
        for item, made in reviewed
    ]
    qualities_found = []
    for quality in qualities(_rows(sampled, made_of)):
        figures = {name: getattr(quality, name)._asdict() for name in ("precision", "recall")}
        qualities_found.append({**quality._asdict(), **figures})
    return {"items": queue.counts(), "quality": qualities_found, "agreement": agreement(said)}


async def golden_rows(
    queue: ReviewQueue,
    policy_id: str,
    text_of: Callable[[dict[str, Any]], Awaitable[str | None]],
) -> tuple[list[dict[str, Any]], int]:
    """Return the golden rows of a policy, and how many decisions have no text any more.

    Args:
        queue: the queue.
        policy_id: of the policy.
        text_of: returns the text of an item's post, where it can be read.
    """
    rows: dict[str, dict[str, Any]] = {}
    missing = 0
    for item, made in queue.reviewed():
        outcome = _final(made)
        if item["policy"]["id"] != policy_id or outcome is None:
            continue
        # The topic may still have a record whose post was deleted.
        text = None if item["deleted"] else item["text"] or await text_of(item)
        if text is None:
            missing += 1
            continue
        label = outcome["decision"]
        if label == "violates" and outcome["category"] is not None:
            label = outcome["category"]
        name = golden_name(item["content"])
        row = {"id": name, "text": text, "label": label}
        if item["content"]["language"]:
            row["language"] = item["content"]["language"]
        rows[name] = row
    return [rows[name] for name in sorted(rows)], missing
