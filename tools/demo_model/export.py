"""Writes a trained network as a model's folder in Hugging Face form, in bfloat16: vLLM loads it with no special code.

Writes only weights that the network computed with; sinks are written as the 0 that they were.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from stream_guard.testing.random_model import CHAT_TEMPLATE, documents
from tools.demo_model.network import Network, Shape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tokenizers import Tokenizer
    from torch import Tensor


def load_network(checkpoint: Path) -> Network:
    """Return the network of a checkpoint.

    Raises:
        OSError: there is none.
    """
    state = torch.load(checkpoint, weights_only=True)
    network = Network(Shape(**state["shape"]))
    prefix = "network."
    network.load_state_dict(
        {
            name[len(prefix) :]: weight
            for name, weight in state["model"].items()
            if name.startswith(prefix)
        }
    )
    return network


@torch.no_grad()
def load_folder(folder: Path, tokenizer: Tokenizer) -> Network:
    """Return the network of a model's folder, grown to a tokenizer that begins with the folder's tokens.

    A new token's rows are the mean of the rows of the pieces that it replaces.

    Raises:
        OSError: a file is missing.
    """
    from safetensors.torch import load_file
    from tokenizers import Tokenizer as Reader

    weights = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    known = Reader.from_file(str(folder / "tokenizer.json"))
    network = Network(
        Shape(
            tokenizer.get_vocab_size(),
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            head_size=config["head_dim"],
            experts=config["num_local_experts"],
            experts_used=config["num_experts_per_tok"],
            intermediate=config["intermediate_size"],
        )
    )
    first = known.get_vocab_size()
    for name, target in _weights(network):
        own = weights[name].float()
        if target.shape[0] == network.shape.vocabulary != own.shape[0]:
            new = [
                own[known.encode(tokenizer.decode([token]), add_special_tokens=False).ids].mean(0)
                for token in range(first, network.shape.vocabulary)
            ]
            own = torch.cat((own, torch.stack(new)))
        # Every tensor but the sinks is the network's own, or a view of it.
        target.copy_(own)
    return network


def training_record(checkpoint: Path) -> dict[str, Any]:
    """Return the steps, tokens and seconds of a checkpoint's training, and whether it began with a model's weights."""
    state = torch.load(checkpoint, weights_only=True)
    plan = json.loads(checkpoint.with_name("plan.json").read_text(encoding="utf-8"))
    return {
        "started": bool(plan["start"]),
        "steps": state["step"],
        "tokens": state["tokens"],
        "spent_s": state["spent_s"],
        "processes": state.get("processes", 2),
    }


def export(network: Network, tokenizer: Tokenizer, folder: Path) -> int:
    """Write the folder; return its number of weights."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.bfloat16().contiguous().clone() for name, weight in _weights(network)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors keeps it to its owner
    tokenizer.save(str(folder / "tokenizer.json"))
    files = documents(tokenizer)
    files["config.json"] |= _config(network.shape)
    for name, document in files.items():
        (folder / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return sum(weight.numel() for weight in weights.values())


def _config(shape: Shape) -> dict[str, Any]:
    positions = 32_768
    return {
        "head_dim": shape.head_size,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        # vLLM lets every other layer see only the window, whatever the types say: the window is as long as all.
        "layer_types": ["full_attention"] * shape.layers,
        "sliding_window": positions,
        "max_position_embeddings": positions,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "num_experts_per_tok": shape.experts_used,
        "num_hidden_layers": shape.layers,
        "num_local_experts": shape.experts,
        # With a factor of 1, YaRN is the plain rotary embedding.
        "rope_parameters": {
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 1.0,
            "original_max_position_embeddings": positions,
            "rope_theta": shape.rope_theta,
            "rope_type": "yarn",
            "truncate": False,
        },
        "vocab_size": shape.vocabulary,
    }


@torch.no_grad()
def _weights(network: Network) -> Iterator[tuple[str, Tensor]]:
    shape = network.shape
    yield "model.embed_tokens.weight", network.embedding.weight
    yield "lm_head.weight", network.head.weight
    yield "model.norm.weight", network.norm.weight
    for number, layer in enumerate(network.blocks()):
        name = f"model.layers.{number}"
        yield f"{name}.input_layernorm.weight", layer.input_norm.weight
        yield f"{name}.post_attention_layernorm.weight", layer.post_norm.weight
        yield f"{name}.self_attn.sinks", torch.zeros(shape.heads)
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            module = getattr(layer.attention, part)
            yield f"{name}.self_attn.{part}.weight", module.weight
            yield f"{name}.self_attn.{part}.bias", module.bias
        experts = layer.experts
        yield f"{name}.mlp.router.weight", experts.router.weight
        yield f"{name}.mlp.router.bias", experts.router.bias
        inner = 2 * shape.intermediate
        yield (
            f"{name}.mlp.experts.gate_up_proj",
            experts.up.view(shape.hidden, shape.experts, inner).permute(1, 0, 2),
        )
        yield f"{name}.mlp.experts.gate_up_proj_bias", experts.up_bias
        yield (
            f"{name}.mlp.experts.down_proj",
            experts.down.view(shape.experts, shape.intermediate, shape.hidden),
        )
        yield f"{name}.mlp.experts.down_proj_bias", experts.down_bias
