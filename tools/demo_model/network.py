"""The gpt-oss architecture in plain PyTorch, laid out for training on a CPU: one policy, many posts.

It computes what transformers' and vLLM's ``GptOssForCausalLM`` compute; a test compares the three. Sinks stay at 0, all
experts run at once, and a post's tokens attend to its policy and to itself alone. Sources: the model's card and
transformers' ``modeling_gpt_oss.py``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(slots=True, frozen=True)
class Shape:
    """Sizes of the network."""

    vocabulary: int
    hidden: int = 128
    layers: int = 5
    heads: int = 4
    head_size: int = 64
    experts: int = 4
    experts_used: int = 2
    intermediate: int = 64
    rope_theta: float = 150_000.0

    def as_dict(self) -> dict[str, Any]:
        """Return the sizes by name."""
        return asdict(self)


@dataclass(slots=True)
class Batch:
    """Policies and their posts.

    Attributes:
        prefix: token ids, ``[policies, prefix length]``, padded at the end.
        prefix_lengths: ``[policies]``.
        posts: token ids of posts and answers, ``[policies, posts, length]``, padded at the end.
    """

    prefix: Tensor
    prefix_lengths: Tensor
    posts: Tensor


class _Norm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), self.weight, 1e-5)


def _tensor(given: object) -> Tensor:
    """Return a module's answer, whose type torch does not say."""
    assert isinstance(given, Tensor), type(given)
    return given


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class _Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.size = shape.heads, shape.head_size
        width = shape.heads * shape.head_size
        self.q_proj = nn.Linear(shape.hidden, width)
        self.k_proj = nn.Linear(shape.hidden, width)
        self.v_proj = nn.Linear(shape.hidden, width)
        self.o_proj = nn.Linear(width, shape.hidden)
        for module in (self.q_proj, self.k_proj, self.v_proj):
            nn.init.normal_(module.weight, std=1 / math.sqrt(shape.hidden))
            nn.init.zeros_(module.bias)
        # Half of the heads start by matching equal tokens, so that comparing words need not be learned by chance.
        half = width // 2
        with torch.no_grad():
            self.q_proj.weight[:half] = self.k_proj.weight[:half]
        nn.init.normal_(self.o_proj.weight, std=0.5 / math.sqrt(width))
        nn.init.zeros_(self.o_proj.bias)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, length, _ = x.shape
        q, k, v = (
            module(x).view(rows, length, self.heads, self.size).transpose(1, 2)
            for module in (self.q_proj, self.k_proj, self.v_proj)
        )
        return _turn(q, cos, sin), _turn(k, cos, sin), v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Return what tokens take from each other; ``mask`` has a column more than there are keys."""
        # The sink is one more key with logit 0 and value 0.
        sink = k.new_zeros(k.shape[0], self.heads, 1, self.size)
        out = functional.scaled_dot_product_attention(
            q, torch.cat((k, sink), 2), torch.cat((v, sink), 2), attn_mask=mask
        )
        return _tensor(self.o_proj(out.transpose(1, 2).flatten(2)))

    def attend_shared(
        self,
        own: tuple[Tensor, Tensor, Tensor],
        shared: tuple[Tensor, Tensor],
        masks: Sequence[Tensor],
    ) -> Tensor:
        """Return what posts' tokens take from their policy and from themselves.

        Args:
            own: queries, keys and values of posts, ``[policies * posts, heads, length, size]``.
            shared: keys and values of prefixes, ``[policies, heads, prefix length, size]``.
            masks: of prefixes ``[policies, 1, 1, prefix length]``, and of a post by itself ``[length, length]``.
        """
        q, k, v = own
        shared_k, shared_v = shared
        rows, heads, length, size = q.shape
        policies, prefix = shared_k.shape[0], shared_k.shape[2]
        q = q * size**-0.5
        # All posts of a policy ask its keys in one product: [policies, heads, posts * length, size].
        joined = q.view(policies, -1, heads, length, size).transpose(1, 2).flatten(2, 3)
        over = joined @ shared_k.transpose(-1, -2) + masks[0]
        over = over.view(policies, heads, -1, length, prefix).transpose(1, 2).flatten(0, 1)
        among = q @ k.transpose(-1, -2) + masks[1]
        sink = q.new_zeros(rows, heads, length, 1)
        share = torch.cat((over, among, sink), -1).softmax(-1)
        # Split, not cut out: the gradient of a slice is a tensor of nulls as large as the whole.
        share_over, share_among, _ = torch.split(share, [prefix, length, 1], -1)
        over = share_over.view(policies, -1, heads, length, prefix).transpose(1, 2)
        out = (over.flatten(2, 3) @ shared_v).view(policies, heads, -1, length, size)
        out = out.transpose(1, 2).flatten(0, 1) + share_among @ v
        return _tensor(self.o_proj(out.transpose(1, 2).flatten(2)))


class _Experts(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.count, self.used, self.size = shape.experts, shape.experts_used, shape.intermediate
        hidden = shape.hidden
        self.router = nn.Linear(hidden, shape.experts)
        nn.init.normal_(self.router.weight, std=1 / math.sqrt(hidden))
        nn.init.zeros_(self.router.bias)
        # Experts side by side: [hidden, experts * 2 * intermediate] and [experts * intermediate, hidden].
        self.up = nn.Parameter(
            torch.randn(hidden, shape.experts * 2 * self.size) / math.sqrt(hidden)
        )
        self.up_bias = nn.Parameter(torch.zeros(shape.experts, 2 * self.size))
        self.down = nn.Parameter(
            torch.randn(shape.experts * self.size, hidden) * 0.5 / math.sqrt(self.size)
        )
        self.down_bias = nn.Parameter(torch.zeros(shape.experts, hidden))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.router(x)
        top, chosen = logits.topk(self.used, -1)
        weight = torch.zeros_like(logits).scatter(-1, chosen, top.softmax(-1))
        both = (x @ self.up).view(*x.shape[:-1], self.count, 2 * self.size) + self.up_bias
        gate, up = both[..., ::2].clamp(max=7), both[..., 1::2].clamp(-7, 7)
        inner = (up + 1) * gate * torch.sigmoid(1.702 * gate) * weight[..., None]
        return inner.flatten(-2) @ self.down + weight @ self.down_bias


class _Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_norm = _Norm(shape.hidden)
        self.attention = _Attention(shape)
        self.post_norm = _Norm(shape.hidden)
        self.experts = _Experts(shape)


class Network(nn.Module):
    """The model; ``forward`` returns states, ``logits`` makes tokens of them."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.hidden)
        nn.init.normal_(self.embedding.weight, std=0.25)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        self.norm = _Norm(shape.hidden)
        self.head = nn.Linear(shape.hidden, shape.vocabulary, bias=False)
        nn.init.normal_(self.head.weight, std=0.02)
        half = torch.arange(0, shape.head_size, 2).float() / shape.head_size
        self.frequencies = shape.rope_theta**-half

    def blocks(self) -> list[_Layer]:
        """Return the layers, with their type, which torch's list of modules forgets."""
        return [layer for layer in self.layers if isinstance(layer, _Layer)]

    def logits(self, states: Tensor) -> Tensor:
        """Return logits of the next token for states ``[..., hidden]``."""
        return _tensor(self.head(self.norm(states)))

    def forward(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """Return the states after each layer, of prefixes and of posts.

        Returns:
            For each layer ``[policies, prefix length, hidden]``, and ``[policies * posts, length, hidden]``.
        """
        policies, count, length = batch.posts.shape
        own = batch.prefix.shape[1]
        positions = torch.arange(own).expand(policies, own)
        later = (batch.prefix_lengths[:, None] + torch.arange(length)).repeat_interleave(count, 0)
        turn_prefix, turn_posts = self._turns(positions), self._turns(later)
        mask_prefix, *masks = self._masks(batch)
        prefix = self.embedding(batch.prefix)
        posts = self.embedding(batch.posts.flatten(0, 1))
        prefixes, answers = [], []
        for layer in self.blocks():
            q, k, v = layer.attention.project(layer.input_norm(prefix), *turn_prefix)
            prefix = prefix + layer.attention.attend(q, k, v, mask_prefix)
            own_q, own_k, own_v = layer.attention.project(layer.input_norm(posts), *turn_posts)
            posts = posts + layer.attention.attend_shared((own_q, own_k, own_v), (k, v), masks)
            # Both at once: one large product is faster than two small ones.
            flat = torch.cat((prefix.flatten(0, 1), posts.flatten(0, 1)))
            flat = flat + layer.experts(layer.post_norm(flat))
            prefix = flat[: policies * own].view_as(prefix)
            posts = flat[policies * own :].view_as(posts)
            prefixes.append(prefix)
            answers.append(posts)
        return prefixes, answers

    def _turns(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        angles = positions[..., None].float() * self.frequencies
        kind = self.embedding.weight.dtype
        return angles.cos()[:, None].to(kind), angles.sin()[:, None].to(kind)

    def _masks(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the masks that are added to logits: prefixes, posts over prefixes, posts."""
        length, own = batch.posts.shape[2], batch.prefix.shape[1]
        kind = self.embedding.weight.dtype
        causal = torch.full((own, own + 1), -math.inf, dtype=kind).triu(1)
        causal[:, -1] = 0
        beyond = torch.arange(own) >= batch.prefix_lengths[:, None]
        shared = torch.zeros(len(beyond), own, dtype=kind).masked_fill(beyond, -math.inf)
        behind = torch.full((length, length), -math.inf, dtype=kind).triu(1)
        return causal[None, None], shared[:, None, None], behind
