"""Trains the demo model: seeded, resumable, with progress; two processes on two cores by default.

Each process has one thread and its share of every batch, and gradients are averaged. On a busy machine this loses far
less than two threads that wait for each other in every product. Batches depend only on the seed, the step and the
share, so an interrupted run continues as if nothing had happened.

Two small heads in the middle of the network are trained as well and dropped at the end. For a policy's tokens they
predict the rule that the token belongs to; for a post's tokens, the rule that it matches. The answer alone teaches too
little: the model memorizes the training words before it learns to compare.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from tools.demo_model.examples import (
    DECISION_WEIGHT,
    EFFORTS,
    ID_WEIGHT,
    IGNORED,
    LABEL_WEIGHT,
    OUTCOME_WEIGHT,
    Encoder,
    Mix,
    collate,
    make_pair,
    make_row,
)
from tools.demo_model.export import load_folder
from tools.demo_model.network import Network, Shape
from tools.demo_model.policies import Size
from tools.demo_model.tokens import extended, train_tokenizer
from tools.demo_model.words import pool

if TYPE_CHECKING:
    from tools.demo_model.examples import Targets

_ROLES: Final = 5
_DIGITS: Final = 10
_CHECKPOINT: Final = "checkpoint.pt"
KINDS: Final = (
    "all",
    "structured",
    "native labels",
    "native digits",
    "native code",
    "native json",
    "three",
    "escalated",
    "thread",
)
"""What posts are counted by; all of them first."""
_THREADS: Final = 0.85
"""Share of posts that have a thread, in a step with threads."""


@dataclass(slots=True, frozen=True)
class Plan:
    """How a run goes.

    Attributes:
        steps: in all.
        policies, posts: of a step and process: policies, and posts for each.
        curriculum_steps: until policies and posts have their full size.
        rate_matrices, rate: learning rates, of Muon for the layers' matrices and AdamW for the rest.
        decay: share of the steps, at the end, in which the rates fall to nothing.
        hint: weight of the two extra heads.
        unrelated: how many more posts name a thing that no rule names. There must be as many as of forbidden ones,
            or the model takes every named thing for forbidden.
        native: share of policies that are used alone.
        threads: share of steps in which most posts have a thread around them. Posts of a step are as long as the
            longest, so threads come together.
        pairs: share of steps in which every second policy is the one before it, edited, with the same posts.
        start: folder of the model whose weights it begins with; "" for none.
    """

    seed: int = 0
    steps: int = 7_000
    processes: int = 2
    policies: int = 4
    posts: int = 8
    curriculum_steps: int = 1_000
    rate_matrices: float = 0.015
    rate: float = 2e-3
    decay: float = 0.42
    hint: float = 0.5
    unrelated: float = 0.2
    native: float = 0.4
    threads: float = 0.38
    pairs: float = 0.0
    start: str = ""
    report_steps: int = 100


def further(start: str) -> Plan:
    """Return the plan that trains on from a model's folder: fewer steps, lower rates, no curriculum."""
    return Plan(
        steps=9_000,
        curriculum_steps=0,
        rate_matrices=0.0075,
        rate=1e-3,
        decay=0.5,
        native=0.5,
        pairs=0.6,
        start=start,
    )


class Hints(nn.Module):
    """The two extra heads: role, category's number and rule's place of a token."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.policy = nn.Linear(hidden, _ROLES + 2 * _DIGITS)
        self.post = nn.Linear(hidden, _ROLES + 2 * _DIGITS)


class Model(nn.Module):
    """The network with its hints, and the loss of a batch."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.hints = Hints(network.shape.hidden)

    def forward(self, batch: Any, targets: Targets, hint: float) -> tuple[Tensor, list[float]]:
        """Return the loss, and its parts for the report."""
        prefixes, posts = self.network(batch)
        asked = targets.next_tokens != IGNORED
        states = posts[-1].view(*targets.next_tokens.shape, -1)[asked]
        each = functional.cross_entropy(
            self.network.logits(states).float(), targets.next_tokens[asked], reduction="none"
        )
        weights = targets.weights[asked]
        answer = (each * weights).sum() / weights.sum()
        last = len(posts) - 2
        section, place = _hint_loss(self.hints.policy(prefixes[1]), targets.prefix)
        match, rule = _hint_loss(self.hints.post(posts[last]), targets.posts)
        loss = answer + hint * (section + 0.5 * place + 2 * match + rule)
        return loss, [float(part.detach()) for part in (answer, section, place, match, rule)]


def _hint_loss(logits: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    logits, asked = logits.float().flatten(0, -2), asked.flatten(0, -2)
    kept = asked[:, 0] != IGNORED
    logits, asked = logits[kept], asked[kept]
    # Most tokens have no meaning target.
    balance = torch.tensor([0.3, 1.0, 1.0, 1.0, 1.0])
    role = functional.cross_entropy(logits[:, :_ROLES], asked[:, 0], weight=balance)
    named = asked[:, 0] > 0
    if not bool(named.any()):
        return role, role.new_zeros(())
    logits, asked = logits[named], asked[named]
    place = functional.cross_entropy(
        logits[:, _ROLES : _ROLES + _DIGITS], asked[:, 1]
    ) + functional.cross_entropy(logits[:, _ROLES + _DIGITS :], asked[:, 2])
    return role, place


def size_at(step: int, plan: Plan) -> tuple[Size, float]:
    """Return how large policies are at a step, and how often posts are hard."""
    grown = min(1.0, step / max(1, plan.curriculum_steps))
    return (
        Size(
            sections_max=1 + round(2 * grown),
            rules_max=2 + round(2 * grown),
            topics_max=1 + round(2 * grown),
            notes_max=round(4 * grown),
        ),
        grown,
    )


def train(folder: Path, plan: Plan, shape: dict[str, Any] | None = None) -> None:
    """Train in a folder; goes on from its checkpoint, if there is one."""
    from tokenizers import Tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.exists():
        made = (
            extended(Tokenizer.from_file(str(Path(plan.start) / "tokenizer.json")))
            if plan.start
            else train_tokenizer(plan.seed)
        )
        made.save(str(tokenizer))
    (folder / "plan.json").write_text(json.dumps(asdict(plan), indent=2) + "\n", encoding="utf-8")
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    rendezvous = folder / f"rendezvous-{os.getpid()}"
    rendezvous.unlink(missing_ok=True)
    torch.multiprocessing.spawn(  # type: ignore[attr-defined,no-untyped-call]
        _worker, (folder, plan, shape or {}, rendezvous), nprocs=plan.processes
    )
    rendezvous.unlink(missing_ok=True)


def _worker(rank: int, folder: Path, plan: Plan, shape: dict[str, Any], rendezvous: Path) -> None:
    from tokenizers import Tokenizer

    torch.set_num_threads(1)
    # Denormal numbers cost the processor a hundred times as much as zeros.
    torch.set_flush_denormal(True)
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous.resolve()}", rank=rank, world_size=plan.processes
    )
    torch.manual_seed(plan.seed)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if plan.start:
        network = load_folder(Path(plan.start), tokenizer)
    else:
        network = Network(Shape(tokenizer.get_vocab_size(), **shape))
    _Run(rank, folder, plan, network, Encoder(tokenizer)).go()
    dist.destroy_process_group()


class _Run:
    def __init__(
        self, rank: int, folder: Path, plan: Plan, network: Network, encoder: Encoder
    ) -> None:
        self.rank, self.folder, self.plan, self.encoder = rank, folder, plan, encoder
        self.model = Model(network)
        matrices = [
            weight
            for name, weight in self.model.network.layers.named_parameters()
            if weight.ndim == 2 and "bias" not in name and "router" not in name
        ]
        own = {id(weight) for weight in matrices}
        rest = [weight for weight in self.model.parameters() if id(weight) not in own]
        self.rest = rest
        self.optimizers: list[tuple[torch.optim.Optimizer, float]] = [
            (
                torch.optim.Muon(matrices, lr=plan.rate_matrices, weight_decay=0.01),
                plan.rate_matrices,
            ),
            (
                torch.optim.AdamW(rest, lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.01),
                plan.rate,
            ),
        ]
        self.step, self.tokens, self.spent_s = 0, 0, 0.0
        self.parts: list[float] = []
        checkpoint = folder / _CHECKPOINT
        if checkpoint.exists():
            state = torch.load(checkpoint, weights_only=True)
            self.model.load_state_dict(state["model"])
            for (optimizer, _), saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.step, self.tokens, self.spent_s = state["step"], state["tokens"], state["spent_s"]

    def go(self) -> None:
        plan = self.plan
        while self.step < plan.steps:
            began_s = time.monotonic()
            self._step()
            self.step += 1
            self.spent_s += time.monotonic() - began_s
            if self.step % plan.report_steps == 0 or self.step == plan.steps:
                self._report()

    def _step(self) -> None:
        plan = self.plan
        # min() of both slopes: up for the first steps, down for the last.
        slope = min(
            1.0,
            (self.step + 1) / 50,
            max(0.02, (plan.steps - self.step) / (plan.decay * plan.steps)),
        )
        for optimizer, rate in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * slope
        draw = random.Random(f"{plan.seed}/{self.step}/{self.rank}")
        size, hard = size_at(self.step, plan)
        words, effort = pool("train"), draw.choice(EFFORTS)
        together = random.Random(f"{plan.seed}/{self.step}").random() < plan.threads
        mix = Mix(hard, plan.unrelated, _THREADS if together else 0.0, plan.native)
        of_step = (draw, self.encoder, words, size, plan.posts, mix, effort)
        if plan.policies % 2 == 0 and draw.random() < plan.pairs:
            rows = [row for _ in range(plan.policies // 2) for row in make_pair(*of_step)]
        else:
            rows = [make_row(*of_step) for _ in range(plan.policies)]
        batch, targets = collate(rows)
        self.tokens += (batch.prefix.numel() + batch.posts.numel()) * plan.processes
        # bfloat16 as in the engine, and four times as fast as float32 where the processor has it.
        short = {name: weight.bfloat16() for name, weight in self.model.named_parameters()}
        loss, parts = torch.func.functional_call(self.model, short, (batch, targets, plan.hint))
        loss.backward()
        self._share()
        nn.utils.clip_grad_norm_(self.rest, 1.0)
        for optimizer, _ in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.parts = (
            [0.95 * old + 0.05 * new for old, new in zip(self.parts, parts, strict=True)]
            if self.parts
            else parts
        )

    def _share(self) -> None:
        """Average the gradients of all processes."""
        weights = list(self.model.parameters())
        grads = [w.grad if w.grad is not None else torch.zeros_like(w) for w in weights]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        flat /= self.plan.processes
        at = 0
        for weight in weights:
            weight.grad = flat[at : at + weight.numel()].view_as(weight)
            at += weight.numel()

    def _report(self) -> None:
        counts = torch.tensor(measure(self.model.network, self.encoder, self.rank))
        dist.all_reduce(counts)
        if self.rank:
            return
        decision, rule, whole, total = torch.split(counts, len(KINDS))
        shown = ", ".join(
            f"{name} {float(share):.3f}"
            for name, share in zip(KINDS, decision / total.clamp(min=1), strict=True)
        )
        rules = float(rule[0] / total[0].clamp(min=1))
        sys.stdout.write(
            f"{self.spent_s:6.0f} s, step {self.step} of {self.plan.steps}, {self.tokens / 1e6:.1f} M tokens, "
            f"loss {' '.join(f'{part:.3f}' for part in self.parts)} | held out, decisions: {shown} | "
            f"with the rule {rules:.3f}, whole {float(whole[0] / total[0].clamp(min=1)):.3f}\n"
        )
        sys.stdout.flush()
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer, _ in self.optimizers],
            "shape": self.model.network.shape.as_dict(),
            "step": self.step,
            "tokens": self.tokens,
            "spent_s": self.spent_s,
            "processes": self.plan.processes,
        }
        partial = self.folder / f"{_CHECKPOINT}.partial"
        torch.save(state, partial)
        partial.replace(self.folder / _CHECKPOINT)


@torch.no_grad()
def measure(network: Network, encoder: Encoder, share: int, *, policies: int = 24) -> list[float]:
    """Count right answers on held-out words, teacher-forced, for each of ``KINDS``.

    Args:
        network: the model.
        encoder: of its tokenizer.
        share: which policies; each process has its own.
        policies: how many.

    Returns:
        For each kind right decisions; then right decisions with the rule; then whole answers; then posts.
    """
    draw = random.Random(f"measure/{share}")
    rows = [make_row(draw, encoder, pool("held_out"), Size(), 8, Mix()) for _ in range(policies)]
    counts = torch.zeros(4, len(KINDS))
    decisive = torch.tensor([DECISION_WEIGHT, LABEL_WEIGHT, OUTCOME_WEIGHT])
    for begin in range(0, policies, 6):
        some = rows[begin : begin + 6]
        batch, targets = collate(some)
        _, states = network(batch)
        said = network.logits(states[-1]).argmax(-1).view_as(targets.next_tokens)
        right = (said == targets.next_tokens) | (targets.next_tokens == IGNORED)
        ids = targets.weights == ID_WEIGHT
        first = torch.isin(targets.weights, decisive)
        decided = (right | ~first).all(-1).flatten()
        ruled = decided & (right | ~ids).all(-1).flatten()
        kinds = [post.kinds for row in some for post in row.posts]
        own = torch.tensor([[name == "all" or name in each for name in KINDS] for each in kinds])
        for index, flags in enumerate(
            (decided, ruled, right.all(-1).flatten(), torch.ones_like(decided))
        ):
            counts[index] += (own & flags[:, None]).sum(0)
    found: list[float] = counts.flatten().tolist()
    return found
