"""``python -m tests.integration.scripted_app``: the real program and engine; what it emits, a post's text says.

The text's first word names a completion for each rung of the ladder; the rest makes posts differ.
"""

# ruff: noqa: ANN401 - vLLM's objects

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from stream_guard.judging.families.family import Sampling
from stream_guard.judging.families.registry import load_family
from stream_guard.judging.tiers.ladder import Ladder
from stream_guard.service.app import App
from stream_guard.settings import load_settings
from stream_guard.telemetry.logs import configure_logs
from tests.integration.test_engine import MALFORMED, Scripted

if TYPE_CHECKING:
    from stream_guard.judging.contract import JudgeRequest
    from stream_guard.judging.engine.plans import Attempt

_HEAD: Final = (
    "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>"
)


def _answer(violation: int, category: str, rule: str) -> str:
    return (
        f'{_HEAD}{{"violation":{violation},"policy_category":"{category}","rule_ids":["{rule}"],'
        '"rationale":"So it says."}<|return|>'
    )


FINE = _answer(0, "ARS0", "ARS0.a")
MILD = _answer(1, "ARS1", "ARS1.a")
SEVERE = _answer(1, "ARS2", "ARS2.a")
SCRIPTS: Final = {
    "fine": {"low": FINE},
    "mild": {"low": MILD},
    "severe": {"low": SEVERE, "medium": SEVERE},
    "muddled": {"low": MALFORMED, "medium": MALFORMED, "high": MILD},
    "hopeless": {"low": MALFORMED, "medium": MALFORMED, "high": MALFORMED},
}
"""By a post's first word, and the effort at which the model is asked."""


class ByText(Scripted):
    """The real engine; what it emits depends on the post and the rung."""

    def _params(self, request: JudgeRequest, attempt: Attempt) -> Any:
        script = SCRIPTS[request.post.text.split()[0]][request.effort or request.policy.effort]
        return self._client.sampling_params(
            Sampling(None, attempt.tokens_max),
            probabilities=False,
            extra_args={"script": self.ids_of(script)},
        )


def main() -> None:
    """Run until a signal."""
    settings = load_settings()
    configure_logs(settings.telemetry)
    judge = ByText(settings.engine, load_family, Ladder(settings.cascade).rungs)

    async def go() -> None:
        await App(settings, judge=judge).run()

    asyncio.run(go())


if __name__ == "__main__":
    main()
