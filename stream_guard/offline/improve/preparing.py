"""Finds all that measuring a draft needs, and refuses a draft that cannot be measured before an engine starts.

A draft may name a golden set of its own. It must have every row of the golden set in force, with the same label. So a
draft can add rows, and cannot make its gate easier by leaving rows out.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import PolicyError, SettingsError
from stream_guard.kafka.bounds import Bound
from stream_guard.offline.evaluation.golden import Columns, finish_rows, read_golden
from stream_guard.offline.improve.gates import gates_of
from stream_guard.offline.improve.measuring import Measuring
from stream_guard.offline.improve.promoting import check_draft
from stream_guard.policies.drafts import golden_file
from stream_guard.policies.routing import NoRouteError
from stream_guard.records.post import PostParser

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stream_guard.offline.evaluation.golden import GoldenRow
    from stream_guard.offline.improve.rulings import Ruling
    from stream_guard.policies.drafts import Draft
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.settings import Settings

__all__ = ["BACKTEST_RECORDS_MAX", "SHADOW_MAX", "Ready", "golden_rows", "prepare"]

BACKTEST_RECORDS_MAX: Final = 5_000
"""Records of each topic that are judged again, unless another number is asked for."""
SHADOW_MAX: Final = 1_000
"""Verdicts of a shadow that are compared, likewise."""
_DAY_MS: Final = 86_400_000


@dataclass(slots=True, frozen=True)
class Ready:
    """A draft that can be measured.

    Attributes:
        settings: all sections.
        policies: all live policies.
        live: the live version.
        draft: the new one.
        limits: of the gates, by name.
        golden: the golden set's file, and ``rows`` its rows.
    """

    settings: Settings
    policies: PolicySet
    live: Policy
    draft: Draft
    limits: dict[str, float]
    golden: Path
    rows: Sequence[GoldenRow]

    @property
    def with_people(self) -> bool:
        """Whether a gate needs what people decided."""
        return "min_agreement" in self.limits

    def measuring(
        self,
        rulings: Sequence[Ruling] = (),
        *,
        topics: Sequence[str] | None = None,
        since: Bound | None = None,
        records_max: int = BACKTEST_RECORDS_MAX,
        shadow_max: int = SHADOW_MAX,
    ) -> Measuring:
        """Return what to measure: only what the gates need.

        Args:
            rulings: what people decided, if :attr:`with_people`.
            topics: to backtest; None for those of ``kafka.topics`` that the policy may judge.
            since: where the backtest begins; None for 24 hours ago.
            records_max: most records to backtest in each topic; 0 for all.
            shadow_max: most verdicts of a shadow to compare.
        """
        backtested = self._topics() if topics is None else topics
        return Measuring(
            self.settings,
            self.live,
            self.draft.policy,
            self.golden,
            self.rows,
            topics=backtested if "max_flips" in self.limits else (),
            since=since or Bound(time_ms=time.time_ns() // 1_000_000 - _DAY_MS),
            records_max=records_max,
            rulings=rulings,
            shadow_max=shadow_max if self.limits.keys() - {"min_f1"} else 0,
        )

    def _topics(self) -> Sequence[str]:
        found = []
        for topic in self.settings.kafka.topics:
            try:
                routed = self.policies.routing.fixed(topic)
            except NoRouteError:
                continue
            if routed is None or self.live.id in {each.policy for each in routed}:
                found.append(topic)
        return found


def prepare(
    settings: Settings, path: Path, policies: PolicySet, live: Policy, draft: Draft
) -> Ready:
    """Return a draft with its gates and its golden set.

    Args:
        settings: all sections.
        path: the folder of policies.
        policies: all live policies.
        live: the live version.
        draft: the new one.

    Raises:
        PolicyError: the draft changes nothing or follows another version, there are no gates, or the draft's golden set
            lacks a row of the one in force.
        SettingsError: there is no golden set, or it cannot be read.
    """
    check_draft(live, draft)
    limits = gates_of(live.gates, draft.policy.gates, live.id)
    golden = golden_file(path, live, draft.policy)
    rows = golden_rows(settings, golden, draft.policy)
    in_force = golden_file(path, live)
    if in_force != golden and in_force.exists():
        _refuse_lost(in_force, golden_rows(settings, in_force, draft.policy), golden, rows)
    return Ready(settings, policies, live, draft, limits, golden, rows)


def _refuse_lost(
    in_force: Path, old: Sequence[GoldenRow], golden: Path, new: Sequence[GoldenRow]
) -> None:
    """Refuse a golden set that lacks rows of the one in force, or labels them otherwise. Raises PolicyError."""
    left = Counter(map(_content, new))
    lost = []
    for row in old:
        content = _content(row)
        if not left[content]:
            lost.append(row)
        left[content] -= 1
    if lost:
        count = "1 row" if len(lost) == 1 else f"{len(lost)} rows"
        message = (
            f"{golden}: lacks {count} of {in_force}, the golden set in force, or labels them otherwise, the first in "
            f"line {lost[0].number} (label {lost[0].label!r}); a draft may only add rows, so copy the missing ones; "
            f"correct a wrong label in {in_force} itself"
        )
        raise PolicyError(message)


def _content(row: GoldenRow) -> tuple[object, ...]:
    """Return what is judged of a row, and the meaning of its label."""
    post = row.post
    judged = (post.sha256, post.author, post.title, post.context, post.context_dropped)
    return (*judged, row.violates, row.category, row.escalated)


def golden_rows(settings: Settings, golden: Path, policy: Policy) -> Sequence[GoldenRow]:
    """Return the rows of a golden set. Raises SettingsError where there is none, or it cannot be read."""
    if not golden.exists():
        message = (
            f"{golden}: there is no golden set; stream-guard policies improve {policy.id} makes one"
        )
        raise SettingsError(message)
    rows = read_golden(
        golden, policy, Columns(), labels={}, text_bytes_max=settings.post.max_text_bytes
    )
    finish_rows(rows, PostParser(settings.post), golden)
    return rows
