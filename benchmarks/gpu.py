"""Runs the benchmarks with an engine on a GPU, in the shapes of gpt-oss-20b: ``make bench-gpu``, or as follows.

    pip install '.[gpu,broker,bench]'
    python -m benchmarks.gpu

Needs a card of 24 GB or more and no weights: ``load_format=dummy`` makes random ones of the same sizes, which cost
the same to compute with. Their answers are noise that fits the grammar. The command writes a model's folder (the
published shapes, this repository's tokenizer) and measures the card's memory bandwidth by copying. Then it runs
``benchmarks.engine_feed``, ``benchmarks.serving`` and ``benchmarks.latency``. It prints the tokens/s of each run of
engine_feed beside the bound that memory bandwidth sets. Each step makes one token for each of N posts and reads the
weights once:

    bound = N * bandwidth / (bytes of weights + N * bytes of a post's KV cache)

``--model`` and ``--load-format auto`` measure the same with real weights. Exit code 1: no card, or a benchmark that
failed. No figure is printed for a card that it did not run on.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from benchmarks.report import ROOT, Report, Table, finish
from benchmarks.sides import add_engine_extra, default_model

if TYPE_CHECKING:
    from collections.abc import Collection

SHAPES: Final[dict[str, Any]] = {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "attention_bias": True,
    "attention_dropout": 0.0,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2_880,
    "initializer_range": 0.02,
    "intermediate_size": 2_880,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "max_position_embeddings": 131_072,
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "quantization_config": {
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
        "quant_method": "mxfp4",
    },
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "original_max_position_embeddings": 4_096,
        "rope_type": "yarn",
        "truncate": False,
    },
    "rope_theta": 150_000,
    "router_aux_loss_coef": 0.9,
    "sliding_window": 128,
    "swiglu_limit": 7.0,
    "tie_word_embeddings": False,
    "vocab_size": 201_088,
}
"""``config.json`` of openai/gpt-oss-20b and of gpt-oss-safeguard-20b, which has the same shapes."""
BENCHMARKS: Final = ("engine_feed", "serving", "latency")
_MXFP4_BYTES: Final = 4.25 / 8
"""Four bits a weight, and eight bits of scale for each 32 weights."""
_COPIED_BYTES: Final = 2 << 30
_COPIES: Final = 20


class Bound(NamedTuple):
    """What memory bandwidth allows.

    Attributes:
        weights_bytes: that a step reads, with enough posts side by side for all experts to be asked.
        cache_bytes: of one post's KV cache, read in each of its steps.
        tokens_per_s: generated, of all posts together.
    """

    weights_bytes: float
    cache_bytes: float
    tokens_per_s: float


def weights_bytes(config: dict[str, Any]) -> float:
    """Return the bytes of weights that a step reads: attention and output in bf16, experts as they are quantised.

    The embedding is left out: a step reads one row of it for each post.
    """
    layers: int
    hidden: int
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    wide = config["head_dim"]
    attention = hidden * wide * (2 * heads + 2 * kv_heads)
    router = hidden * config["num_local_experts"]
    experts = config["num_local_experts"] * 3 * hidden * config["intermediate_size"]
    method = config.get("quantization_config", {}).get("quant_method")
    expert_bytes = _MXFP4_BYTES if method == "mxfp4" else 2
    read: float = (
        layers * (2 * (attention + router) + expert_bytes * experts)
        + 2 * hidden * config["vocab_size"]
    )
    return read


def cache_bytes(config: dict[str, Any], tokens: float) -> float:
    """Return the bytes of KV cache, in bf16, that a step reads for a post of so many tokens."""
    token_bytes: int = 2 * 2 * config["num_key_value_heads"] * config["head_dim"]
    kinds = config["layer_types"]
    window = config["sliding_window"]
    seen = sum(min(tokens, window) if kind == "sliding_attention" else tokens for kind in kinds)
    return token_bytes * seen


def bound_of(config: dict[str, Any], seqs: int, tokens: float, bandwidth: float) -> Bound:
    """Return the bound on generated tokens/s.

    Args:
        config: of the model.
        seqs: posts side by side.
        tokens: of a post's prompt and answer, on average over its steps.
        bandwidth: of the card's memory, in bytes/s.
    """
    weights, cache = weights_bytes(config), cache_bytes(config, tokens)
    return Bound(weights, cache, seqs * bandwidth / (weights + seqs * cache))


def write_model(folder: Path) -> None:
    """Write a model without weights: the shapes of gpt-oss-20b, and the demo model's tokenizer, made as large as they.

    The tokenizer gets invented words until it has as many tokens as the model. The cost of a grammar per
    step depends on that number. Ids without a token cost more: xgrammar 0.2.8 visits them whenever it accepts
    a token.
    """
    tokenizer = default_model()
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tokenizer / name, folder / name)
    document = orjson.loads((tokenizer / "tokenizer.json").read_bytes())
    taken = {token["id"] for token in document["added_tokens"]}
    fill(document["model"]["vocab"], SHAPES["vocab_size"], taken)
    (folder / "tokenizer.json").write_bytes(orjson.dumps(document))
    small = orjson.loads((tokenizer / "config.json").read_bytes())
    ids = {name: small[name] for name in ("eos_token_id", "pad_token_id")}
    (folder / "config.json").write_bytes(orjson.dumps(SHAPES | ids, option=orjson.OPT_INDENT_2))


def fill(vocabulary: dict[str, int], size: int, taken: Collection[int]) -> None:
    """Give each id under the size that has no token a word of five letters, a space before it (in bytes: ``Ġ``)."""
    words = ("Ġ" + "".join(letters) for letters in itertools.product(ascii_lowercase, repeat=5))
    unused = (word for word in words if word not in vocabulary)
    free = sorted(set(range(size)).difference(vocabulary.values(), taken))
    vocabulary.update(dict(zip(unused, free, strict=False)))


def card() -> str | None:
    """Return the card's name; None if torch can use none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def measure_bandwidth() -> float:
    """Return the card's memory bandwidth in bytes/s, by copying: each byte is read once and written once."""
    import torch

    source = torch.zeros(_COPIED_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    target.copy_(source)
    event: Any = torch.cuda.Event  # torch gives it no types
    first, last = (event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(_COPIES):
        target.copy_(source)
    last.record()
    torch.cuda.synchronize()
    seconds: float = first.elapsed_time(last) / 1_000
    return 2 * _COPIED_BYTES * _COPIES / seconds


def bandwidth_in_own_process() -> float:
    """Return :func:`measure_bandwidth` of a process that ends, so that the engine finds the card's memory free."""
    code = "from benchmarks.gpu import measure_bandwidth; print(measure_bandwidth())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


def bench(name: str, output: Path, words: list[str]) -> tuple[int, dict[str, Any], list[Any]]:
    """Run a benchmark; return its exit code, its report and its raw runs."""
    place = output / name
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--output", str(place), *words],
        cwd=ROOT,
        check=False,
    )
    folders = sorted(place.iterdir()) if place.is_dir() else []
    if not folders:
        return done.returncode or 1, {}, []
    report, raw = (
        orjson.loads((folders[-1] / f"{kind}.json").read_bytes()) for kind in ("report", "raw")
    )
    return done.returncode, report, raw


def fill_report(
    report: Report, config: dict[str, Any], seqs: int, raw: list[Any], bandwidth: float
) -> None:
    """Add the table of tokens/s against the bound, from engine-feed's raw runs."""
    rows = []
    for run in raw:
        if not run.get("rate"):
            continue
        posts = report.options["posts"]
        seconds = posts / run["rate"]
        # Half of the answer is there on average while it is written.
        tokens = (run["prompt_tokens"] + run["output_tokens"] / 2) / posts
        bound = bound_of(config, seqs, tokens, bandwidth)
        made = run["output_tokens"] / seconds
        rows.append(
            (run["side"], run["pair"] + 1, made, bound.tokens_per_s, made / bound.tokens_per_s)
        )
    columns = ("side", "pair", "generated tokens/s", "bound", "share of the bound")
    report.tables.append(Table("Against memory bandwidth", columns, rows))


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, help="a model's folder (default: the shapes of gpt-oss-20b)"
    )
    parser.add_argument("--load-format", default="dummy", help="vLLM's load_format (default dummy)")
    parser.add_argument(
        "--seqs",
        type=int,
        default=256,
        help="posts that the engine runs side by side (default 256)",
    )
    parser.add_argument(
        "--posts", type=int, default=10_000, help="posts of a saturated run (default 10000)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=BENCHMARKS,
        default=list(BENCHMARKS),
        help="the benchmarks to run (default: all)",
    )
    parser.add_argument(
        "--pairs",
        type=int,
        default=3,
        help="pairs of engine_feed and rounds of serving; each starts the engine twice (default 3)",
    )
    parser.add_argument(
        "--no-curves", action="store_true", help="leave out serving's latency against load"
    )
    add_engine_extra(parser)
    parser.add_argument("--output", type=Path, default=Path("bench-output/gpu"), help="where to")
    return parser.parse_args(words)


def words_for(benchmark: str, model: Path, options: argparse.Namespace) -> list[str]:
    """Return a benchmark's options."""
    words = ["--model", str(model), "--load-format", options.load_format, "--cache-mib", "0"]
    words += ["--seqs", str(options.seqs), "--posts", str(options.posts)]
    words += ["--engine-extra", options.engine_extra]
    if benchmark == "engine_feed":
        words += ["--pairs", str(options.pairs)]
    if benchmark == "serving":
        words += ["--rounds", str(options.pairs), *(["--loads"] if options.no_curves else [])]
    return words


def main() -> int:
    """Run the recipe; return the exit code."""
    options = parse()
    name = card()
    if name is None:
        print(
            "benchmarks.gpu needs a GPU that torch can use, and found none: run it on a GPU node with "
            "pip install '.[gpu,broker,bench]'; on a CPU, `make bench` measures the same with the demo model",
            file=sys.stderr,
        )
        return 1
    with tempfile.TemporaryDirectory(prefix="stream-guard-gpu-") as place:
        model = options.model
        if model is None:
            model = Path(place)
            write_model(model)
        bandwidth = bandwidth_in_own_process()
        names = ("posts", "seqs", "pairs", "load_format", "engine_extra")
        shown = {name: getattr(options, name) for name in names}
        report = Report("gpu", "Stream Guard on a GPU.", shown)
        report.machine |= {
            "card": name,
            "memory bandwidth": f"{bandwidth / 1e9:,.0f} GB/s, by copying",
        }
        for one in options.only:
            code, found, raw = bench(one, options.output, words_for(one, model, options))
            if code:
                report.complaints.append(f"{one} ended with {code}: see {options.output / one}")
            for target in found.get("targets", ()):
                report.raw.append({"benchmark": one, **target})
            if one == "engine_feed":
                config = orjson.loads((model / "config.json").read_bytes())
                fill_report(report, config, options.seqs, raw, bandwidth)
        rows = [(one["benchmark"], one["name"], one["value"], one["state"]) for one in report.raw]
        report.tables.append(Table("Targets", ("benchmark", "target", "value", "state"), rows))
    return finish(report, options.output)


if __name__ == "__main__":
    sys.exit(main())
