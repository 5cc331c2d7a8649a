"""Makes a gpt-oss model with random weights: ``python -m stream_guard.testing.random_model DIR``.

It starts in seconds and takes the same path through vLLM as gpt-oss-safeguard, for demos and tests. What it must
never do: pass for a model that has learnt anything. Its answers have the right shape and mean nothing, and its
folder says so.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stream_guard.core.errors import EngineError
from stream_guard.judging.families.harmony.tokens import MARKERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer
    from tokenizers.trainers import BpeTrainer

VOCABULARY: Final = 4_096
HIDDEN: Final = 64
LAYERS: Final = 2
HEADS: Final = 4
KEY_VALUE_HEADS: Final = 2
HEAD_SIZE: Final = 32
EXPERTS: Final = 4
INTERMEDIATE: Final = 64
CONTROL: Final = ("<|startoftext|>", "<|endoftext|>", *MARKERS)
_PATTERN: Final = r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"
_TEXTS: Final = (
    "pydoc_data.topics",
    "argparse",
    "asyncio.events",
    "email.message",
    "http.client",
    "textwrap",
    "this",
)
CHAT_TEMPLATE: Final = (
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>"
    "{% endfor %}<|start|>assistant"
)
_README: Final = """\
# A model with random weights

Made by `python -m stream_guard.testing.random_model`. It has the architecture of gpt-oss and has learnt nothing: its
verdicts have the right shape and no meaning. Use it to try Stream Guard, never to moderate.
"""


def make_random_model(folder: Path, *, seed: int = 0) -> int:
    """Write the model's folder, the same for the same seed and Python; return its number of weights.

    Raises:
        EngineError: the folder cannot be written.
    """
    import numpy as np
    from safetensors.numpy import save_file

    tokenizer = train_tokenizer()
    weights = {
        name: weight.astype(np.float32) for name, weight in _weights(np.random.default_rng(seed))
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(folder / "tokenizer.json"))
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "model.safetensors").chmod(0o644)  # safetensors keeps it to its owner
        for name, document in documents(tokenizer).items():
            (folder / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
        (folder / "README.md").write_text(_README, encoding="utf-8")
    except OSError as error:
        message = f"cannot write the model to {folder}: {error.strerror or error}"
        raise EngineError(message) from error
    return sum(weight.size for weight in weights.values())


def byte_level_bpe(pattern: str) -> Tokenizer:
    """Return an untrained byte-level BPE that splits text by a pattern."""
    from tokenizers import Tokenizer, decoders, models

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split_by(pattern)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def split_by(pattern: str) -> PreTokenizer:
    """Return a pre-tokenizer that splits text by a pattern, down to bytes."""
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def bpe_trainer(vocabulary: int) -> BpeTrainer:
    """Return a trainer of so many tokens, harmony's control tokens first."""
    from tokenizers import pre_tokenizers, trainers

    return trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(CONTROL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )


def train_tokenizer() -> Tokenizer:
    """Train a byte-level BPE on text that ships with Python, with harmony's control tokens."""
    tokenizer = byte_level_bpe(_PATTERN)
    tokenizer.train_from_iterator(_texts(), bpe_trainer(VOCABULARY))
    return tokenizer


def _texts() -> Iterator[str]:
    """Yield prose from the strings of standard library modules, without importing them."""
    for name in _TEXTS:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            continue
        for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def _weights(random: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - numpy is imported where it is used
    """Yield names and arrays. Weights are scaled by 1/sqrt(inputs), so that the output depends on the input."""

    def normal(*shape: int, inputs: int) -> Any:  # noqa: ANN401
        return random.standard_normal(shape) / math.sqrt(inputs)

    def linear(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, Any]]:
        yield f"{name}.weight", normal(outputs, inputs, inputs=inputs)
        yield f"{name}.bias", normal(outputs, inputs=inputs)

    yield "model.embed_tokens.weight", normal(VOCABULARY, HIDDEN, inputs=1)
    yield "lm_head.weight", normal(VOCABULARY, HIDDEN, inputs=HIDDEN)
    yield "model.norm.weight", normal(HIDDEN, inputs=HIDDEN) + 1
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        yield f"{name}.input_layernorm.weight", normal(HIDDEN, inputs=HIDDEN) + 1
        yield f"{name}.post_attention_layernorm.weight", normal(HIDDEN, inputs=HIDDEN) + 1
        yield f"{name}.self_attn.sinks", normal(HEADS, inputs=HEADS)
        for part, heads in (
            ("q_proj", HEADS),
            ("k_proj", KEY_VALUE_HEADS),
            ("v_proj", KEY_VALUE_HEADS),
        ):
            yield from linear(f"{name}.self_attn.{part}", heads * HEAD_SIZE, HIDDEN)
        yield from linear(f"{name}.self_attn.o_proj", HIDDEN, HEADS * HEAD_SIZE)
        yield from linear(f"{name}.mlp.router", EXPERTS, HIDDEN)
        yield (
            f"{name}.mlp.experts.gate_up_proj",
            normal(EXPERTS, HIDDEN, 2 * INTERMEDIATE, inputs=HIDDEN),
        )
        yield (
            f"{name}.mlp.experts.gate_up_proj_bias",
            normal(EXPERTS, 2 * INTERMEDIATE, inputs=HIDDEN),
        )
        yield (
            f"{name}.mlp.experts.down_proj",
            normal(EXPERTS, INTERMEDIATE, HIDDEN, inputs=INTERMEDIATE),
        )
        yield f"{name}.mlp.experts.down_proj_bias", normal(EXPERTS, HIDDEN, inputs=INTERMEDIATE)


def documents(tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    """Return the JSON files beside the weights."""
    ids = {name: tokenizer.token_to_id(name) for name in CONTROL}
    stops = [ids["<|return|>"], ids["<|endoftext|>"], ids["<|call|>"]]
    config = {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "attention_bias": True,
        "attention_dropout": 0.0,
        "dtype": "bfloat16",
        "eos_token_id": ids["<|return|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "head_dim": HEAD_SIZE,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INTERMEDIATE,
        "layer_types": [
            ("sliding_attention", "full_attention")[layer % 2] for layer in range(LAYERS)
        ],
        "max_position_embeddings": 131_072,
        "num_attention_heads": HEADS,
        "num_experts_per_tok": 2,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "num_local_experts": EXPERTS,
        "rms_norm_eps": 1e-05,
        "rope_parameters": {
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "rope_theta": 150000.0,
            "rope_type": "yarn",
            "truncate": False,
        },
        "router_aux_loss_coef": 0.001,
        "sliding_window": 128,
        "swiglu_limit": 7.0,
        "tie_word_embeddings": False,
        "vocab_size": VOCABULARY,
    }
    return {
        "config.json": config,
        "generation_config.json": {"eos_token_id": stops, "pad_token_id": ids["<|endoftext|>"]},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|startoftext|>",
            "eos_token": "<|return|>",
            "pad_token": "<|endoftext|>",
            "model_max_length": 131_072,
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m stream_guard.testing.random_model",
        description="Make a gpt-oss model with random weights. Its verdicts mean nothing.",
    )
    parser.add_argument("folder", type=Path, help="where to write it")
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed makes other weights (default 0)"
    )
    options = parser.parse_args(arguments)
    try:
        count = make_random_model(options.folder, seed=options.seed)
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(
        f"{options.folder}: {count:,} RANDOM weights; its verdicts have the right shape and mean nothing\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
