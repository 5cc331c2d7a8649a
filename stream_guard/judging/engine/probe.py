"""Checks a model without starting its engine: configuration, tokenizer, weights and the installed vLLM."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import EngineError
from stream_guard.judging.engine.arguments import require_vllm
from stream_guard.judging.families.family import Budget
from stream_guard.judging.families.registry import supported_config
from stream_guard.policies.lint.context import BYTES_PER_TOKEN, ROOM_MIN
from stream_guard.records.post import Post

if TYPE_CHECKING:
    from stream_guard.policies.policy import PolicySet
    from stream_guard.settings import EngineSettings, Settings

CONTEXT_TOKENS: Final = 131_072
"""Of gpt-oss-safeguard."""


def probe_model(settings: EngineSettings) -> str:
    """Return one line about the model, after checking what a start of the engine needs.

    Raises:
        EngineError: config, tokenizer or weights are missing or invalid, or vLLM is not installed.
    """
    config, kind = supported_config(settings)
    family = kind.load(settings)
    folder = Path(settings.model).expanduser()
    if (
        folder.is_dir()
        and settings.load_format != "dummy"
        and not any(folder.glob("*.safetensors"))
    ):
        message = f"engine.model: {settings.model} has no weights (*.safetensors)"
        raise EngineError(message)
    build = require_vllm()
    return (
        f"{settings.model}: {config['architectures'][0]}, {config.get('num_hidden_layers', '?')} layers, "
        f"{family.describe()}; {build}"
    )


def context_tokens(settings: EngineSettings) -> int:
    """Return the length of the context, in tokens, as far as it is known without a start.

    It is ``engine.max_model_len``, else what a model in a folder says, else that of gpt-oss-safeguard.
    """
    if settings.max_model_len is not None:
        return settings.max_model_len
    if not Path(settings.model).expanduser().is_dir():
        return CONTEXT_TOKENS
    try:
        config, _ = supported_config(settings)
    except EngineError:
        return CONTEXT_TOKENS
    return int(config.get("max_position_embeddings", CONTEXT_TOKENS))


def probe_context(settings: Settings, policies: PolicySet) -> str:
    """Return one line that compares policies, posts and context, by the model's own tokenizer.

    Raises:
        EngineError: a policy leaves no room for a post, or the model cannot be read.
        PolicyError: a policy's text yields a control token.
    """
    engine = settings.engine
    family = supported_config(engine)[1].load(engine)
    context = context_tokens(engine)
    rooms: dict[str, int] = {}
    for policy in policies.policies.values():
        budget = Budget(policy.reasoning_tokens_max, engine.rationale_tokens_max)
        prefix = family.prefix(policy, policy.effort)
        prompt = len(family.prompt(Post("", "", "", 0), prefix))
        answer = family.sampling(policy, budget).tokens_max
        rooms[policy.id] = room = context - prompt - answer
        if room < ROOM_MIN:
            message = (
                f"policy {policy.id!r}: its prompt has {prompt} tokens and the answer up to {answer}, which leaves "
                f"{max(0, room)} of {context} tokens for a post; raise engine.max_model_len, shorten the policy, or "
                "lower its reasoning_tokens_max"
            )
            raise EngineError(message)
    least = min(rooms, key=lambda policy_id: rooms[policy_id])
    whole_bytes = rooms[least] * BYTES_PER_TOKEN
    detail = f"{context:,} tokens at most; policy {least} leaves {rooms[least]:,} for a post"
    if whole_bytes < settings.post.max_text_bytes:
        detail += (
            f"; posts over about {whole_bytes:,} bytes are judged in windows (post.max_text_bytes is "
            f"{settings.post.max_text_bytes:,}): raise engine.max_model_len, if they should be judged whole"
        )
    return detail
