"""Posts, a policy and models for tests of escalations between two deployments."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from stream_guard.client.filters import Wanted
from stream_guard.client.verdicts import parse_verdict
from stream_guard.client.window import Window
from stream_guard.core.errors import PromptError
from stream_guard.judging.contract import Answer, Judgement, Provenance
from stream_guard.judging.engine.scripted import ScriptedJudge
from stream_guard.policies.policy import PolicySet, make_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stream_guard.client import Verdict
    from stream_guard.judging.contract import JudgeRequest

TOPIC = "stream-guard.escalations"
POLICY = make_policy(
    "spam",
    b"# Spam\nS1: Advertising\nS2: Fraud\n",
    metadata=b"categories:\n  S2: {violates: true, severity: high}\naction: hide\n",
)
POLICIES = PolicySet({"spam": POLICY}, {"posts": ("spam",)})
ANSWERS: dict[str, Answer] = {
    "safe": Answer("safe"),
    "mild": Answer("violates", "S1"),
    "severe": Answer("violates", "S2"),
    "unclear": Answer("undetermined", parse_status="malformed"),
    "slow": Answer("undetermined", parse_status="timeout"),
}


class WordJudge(ScriptedJudge):
    """A model that answers what one word of the post says; ``error`` is an error of the post.

    Args:
        model: its name.
        place: which word.

    Attributes:
        output_tokens: of each answer.
    """

    def __init__(self, model: str, place: int) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.output_tokens = 0
        self._model = model
        self._place = place

    def submit(
        self, requests: Sequence[JudgeRequest], deliver: Callable[[Sequence[Judgement]], None]
    ) -> None:
        """Answer at once."""
        deliver([self._judge(request) for request in requests])

    def _judge(self, request: JudgeRequest) -> Judgement:
        self.asked.append(request.post.text)
        word = request.post.text.split()[self._place]
        provenance = Provenance("safeguard", self._model, engine_version="1", effort="low")
        provenance.output_tokens = self.output_tokens
        now_ns = time.time_ns()
        if word == "error":
            return Judgement(request, error=PromptError("too long"), provenance=provenance)
        return Judgement(
            request, ANSWERS[word], provenance=provenance, started_ns=now_ns, finished_ns=now_ns
        )


def seen(values: Iterable[bytes | None], **wanted: Any) -> list[Verdict]:  # noqa: ANN401
    """Return what a consumer of the client is given, of the values of a verdict topic."""
    window, filters = Window(100_000), Wanted(**wanted)
    given = []
    for value in values:
        verdict = parse_verdict(value)
        if window.is_overruled(verdict, 0) or window.is_superseded(verdict):
            continue
        if not filters.wants(verdict):
            window.note(verdict)
        elif not window.is_repeat(verdict):
            window.remember(verdict)
            given.append(verdict)
    return given
