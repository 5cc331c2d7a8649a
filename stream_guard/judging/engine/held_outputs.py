"""Lets vLLM's scheduler send a completion once, when it ends, and not token by token.

Nobody reads an answer before it is whole. By itself, vLLM makes an object for each post in each step, with arrays for
the token's probability. It encodes the object, sends it to the other process and decodes it there. All of that is work
of the host between two steps. Here a step keeps a token and a number for each post, and the last step sends everything.

The schedulers are in ``schedulers``, so that this module needs no vLLM.
"""

# ruff: noqa: ANN401 - vLLM's objects

from __future__ import annotations

from typing import Any, Final

import numpy as np

__all__ = ["LABEL_AFTER", "HeldOutputs"]

LABEL_AFTER: Final = "stream_guard_label_after"
"""In a request's ``extra_args``: a token. Probabilities are sent of the tokens behind its last place alone."""

_FINAL_ONLY: Final = 2
"""The value of vLLM's ``RequestOutputKind.FINAL_ONLY``."""


class HeldOutputs:
    """Goes before a scheduler of vLLM among a class's bases.

    A request whose output is wanted in parts gets it in parts. With statistics on, the first token is sent at once:
    vLLM takes the time to the first token from it.

    Attributes:
        holds: whether outputs are held; a benchmark turns it off.
    """

    holds = True
    log_stats: bool
    structured_output_manager: Any
    _step: _Step | None = None

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """Apply what the model wrote in a step; return what is to be sent, for each client."""
        parent: Any = super()
        if not self.holds:
            return parent.update_from_output(scheduler_output, model_runner_output)
        step = self._step = _Step(model_runner_output)
        # From these, the scheduler would cut arrays for each request.
        model_runner_output.logprobs = None
        try:
            found = parent.update_from_output(scheduler_output, model_runner_output)
        finally:
            self._step = None
        if step.sent:
            for outputs in found.values():
                for output in outputs.outputs:
                    step.fill(output)
        return found

    def _update_request_with_output(
        self,
        request: Any,
        new_token_ids: list[int],
        is_stale: bool = False,  # noqa: FBT001, FBT002 - as vLLM calls it
    ) -> tuple[list[int], bool]:
        """Add a step's tokens to a request; return those that vLLM is to send, and whether the request has ended."""
        parent: Any = super()
        ids, stopped = parent._update_request_with_output(request, new_token_ids, is_stale)  # noqa: SLF001 - it is extended
        step = self._step
        if step is None:
            return ids, stopped
        held, first = step.keep(request, ids)
        if stopped or not held.to_the_end or (first and self.log_stats):
            step.sent[request.request_id] = held
            return ids, stopped
        # Without tokens to send, vLLM does not advance the grammar.
        if not request.use_structured_output or self.structured_output_manager.accept_tokens(
            request, ids
        ):
            return [], False
        # As vLLM does it. With tokens to send, it would try them once more. But a grammar keeps those before the
        # refused one, and may take the same tokens from there.
        request.status = type(request.status).FINISHED_ERROR
        request.resumable = False
        step.sent[request.request_id] = held
        return [], True


class _Held:
    """What a request wrote and was not sent.

    Args:
        params: the request's sampling parameters.
    """

    __slots__ = ("after", "chosen", "ids", "named", "probabilities", "tables", "to_the_end")

    def __init__(self, params: Any) -> None:
        # Texts that stop a request are looked for in the other process, in each token.
        self.to_the_end = params.output_kind.value == _FINAL_ONLY and not params.stop
        self.probabilities: int | None = params.num_logprobs
        self.after: int | None = (params.extra_args or {}).get(LABEL_AFTER)
        self.ids: list[int] = []
        # Log probability of each token; where other tokens' are wanted too, vLLM's arrays.
        # The first token may have been sent before them, so their tokens are kept as well.
        self.chosen: list[float] = []
        self.named: list[int] = []
        self.tables: list[Any] = []


class _Step:
    """What the model wrote in one step.

    Args:
        output: the model runner's.

    Attributes:
        sent: by request, what is sent after this step.
    """

    def __init__(self, output: Any) -> None:
        self.sent: dict[str, _Held] = {}
        self._table = table = output.logprobs
        self._places = output.req_id_to_index
        self._chosen: list[float] = []
        if table is not None:
            self._chosen = table.logprobs[:, 0].tolist()
            # Several tokens a step, as with speculation: a request's rows begin elsewhere.
            self._rows = table.cu_num_generated_tokens

    def keep(self, request: Any, ids: list[int]) -> tuple[_Held, bool]:
        """Keep a request's newest tokens; return all that is held of it, and whether these are its first."""
        try:
            held, first = request.held_output, False
        except AttributeError:
            held, first = _Held(request.sampling_params), True
            request.held_output = held
        held.ids += ids
        if held.probabilities is not None and self._table is not None:
            place = self._places[request.request_id]
            if held.probabilities:
                held.tables.append(self._table.slice_request(place, len(ids)))
            else:
                row = place if self._rows is None else self._rows[place]
                held.chosen += self._chosen[row : row + len(ids)]
                held.named += ids
                if held.after in ids:
                    before = len(held.named) - ids[::-1].index(held.after)
                    del held.chosen[:before], held.named[:before]
        return held, first

    def fill(self, output: Any) -> None:
        """Give an output all that is held of its request."""
        held = self.sent.get(output.request_id)
        if held is None:
            return
        ids, held.ids = held.ids, []
        output.new_token_ids = ids
        if held.after is not None and output.finish_reason is None:
            return  # which of them are needed, is known at the end
        if held.tables:
            output.new_logprobs = _joined(held.tables)
            held.tables = []
        elif held.chosen:
            output.new_logprobs = self._table._replace(
                logprob_token_ids=np.array(held.named, np.int32)[:, None],
                logprobs=np.array(held.chosen, np.float32)[:, None],
                sampled_token_ranks=np.zeros(len(held.chosen), np.int64),  # nobody asks for ranks
                cu_num_generated_tokens=None,
            )
            held.chosen, held.named = [], []


def _joined(tables: list[Any]) -> Any:
    """Return vLLM's arrays one after another."""
    first = tables[0]
    if len(tables) == 1:
        return first
    *columns, _ = zip(*tables, strict=True)
    return first._replace(
        **dict(zip(first._fields, map(np.concatenate, columns), strict=False)),
    )
