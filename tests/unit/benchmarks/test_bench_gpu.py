"""The recipe for a GPU: its shapes, its bound, and what it says where there is no card."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest
from transformers import AutoTokenizer

from benchmarks import engine_feed, gpu, latency, serving
from benchmarks.report import Report
from benchmarks.sides import Sizes, default_model, environment, sizes_of
from benchmarks.traffic import Topics
from stream_guard.judging.families.harmony.tokenizer import load_tokenizer
from stream_guard.settings import EngineSettings

if TYPE_CHECKING:
    from pathlib import Path

_GIB = 2**30
# openai/gpt-oss's model card (August 2025): 12.8 GiB for the 20b's checkpoint.
_CHECKPOINT_GIB = 12.8


def test_the_shapes_make_the_published_checkpoint_s_size() -> None:
    embedding = 2 * gpu.SHAPES["hidden_size"] * gpu.SHAPES["vocab_size"]
    assert (gpu.weights_bytes(gpu.SHAPES) + embedding) / _GIB == pytest.approx(
        _CHECKPOINT_GIB, rel=0.01
    )


def test_unquantised_experts_weigh_what_bf16_does() -> None:
    plain = {key: value for key, value in gpu.SHAPES.items() if key != "quantization_config"}
    experts = 24 * 32 * 3 * 2_880 * 2_880
    more = gpu.weights_bytes(plain) - gpu.weights_bytes(gpu.SHAPES)
    assert more == pytest.approx(experts * (2 - 4.25 / 8))


def test_a_sliding_window_bounds_half_of_the_layers() -> None:
    token = 2 * 2 * 8 * 64
    assert gpu.cache_bytes(gpu.SHAPES, 100) == token * 24 * 100
    assert gpu.cache_bytes(gpu.SHAPES, 1_000) == token * (12 * 1_000 + 12 * 128)


def test_the_bound_is_what_bandwidth_allows() -> None:
    one = gpu.bound_of(gpu.SHAPES, 1, 0, 1e12)
    assert one.tokens_per_s == pytest.approx(1e12 / one.weights_bytes)
    many = gpu.bound_of(gpu.SHAPES, 256, 1_000, 1e12)
    step_s = (many.weights_bytes + 256 * many.cache_bytes) / 1e12
    assert many.tokens_per_s == pytest.approx(256 / step_s)


def test_the_model_s_folder_has_all_but_weights(tmp_path: Path) -> None:
    gpu.write_model(tmp_path)
    config = orjson.loads((tmp_path / "config.json").read_bytes())
    tokenizer = load_tokenizer(EngineSettings(model=str(tmp_path)))
    assert config["num_hidden_layers"] == len(config["layer_types"])
    assert tokenizer.token_id("0") < config["vocab_size"]
    vocabulary = AutoTokenizer.from_pretrained(str(tmp_path)).get_vocab()
    assert sorted(vocabulary.values()) == list(range(config["vocab_size"]))
    demo = load_tokenizer(EngineSettings(model=str(default_model())))
    assert tokenizer.encode("Selling a kettle, 20 euro") == demo.encode("Selling a kettle, 20 euro")
    assert config["eos_token_id"] < config["vocab_size"]
    assert not list(tmp_path.glob("*.safetensors"))


def test_tokens_stand_against_the_bound() -> None:
    report = Report("gpu", "", {"posts": 100})
    run = {
        "side": "guard",
        "pair": 0,
        "rate": 10.0,
        "prompt_tokens": 100_000,
        "output_tokens": 5_000,
    }
    gpu.fill_report(report, gpu.SHAPES, 8, [run, {"side": "offline", "rate": None}], 1e12)
    ((side, pair, made, bound, share),) = report.tables[0].rows
    assert (side, pair, made) == ("guard", 1, 500.0)
    assert bound == pytest.approx(gpu.bound_of(gpu.SHAPES, 8, 1_025, 1e12).tokens_per_s)
    assert share == pytest.approx(500 / bound)


def test_each_benchmark_gets_the_options_that_it_has(tmp_path: Path) -> None:
    options = gpu.parse(
        ["--posts", "9", "--pairs", "1", "--no-curves", "--engine-extra", '{"seed": 1}']
    )
    for name, kind in (("engine_feed", engine_feed), ("serving", serving), ("latency", latency)):
        found = kind.parse(gpu.words_for(name, tmp_path, options))
        assert (found.model, found.load_format, found.cache_mib) == (tmp_path, "dummy", 0)
        assert (found.posts, found.seqs, sizes_of(found).extra) == (9, 256, '{"seed": 1}')
        if name == "engine_feed":
            assert found.pairs == 1
        if name == "serving":
            assert (found.rounds, found.loads) == (1, [])


def test_further_engine_arguments_reach_all_sides_and_are_an_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = Sizes(tmp_path, extra='{"seed": 1}')
    variables = environment("broker:9092", Topics("a", "b", "c"), tmp_path, sizes)
    assert variables["STREAM_GUARD_ENGINE__EXTRA"] == '{"seed": 1}'
    for wrong in ("[]", "seed"):
        with pytest.raises(SystemExit):
            gpu.parse(["--engine-extra", wrong])
        assert f"not an object in JSON: {wrong}" in capsys.readouterr().err


def test_without_a_card_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "card", lambda: None)
    monkeypatch.setattr("sys.argv", ["gpu"])
    assert gpu.main() == 1
    assert "pip install '.[gpu,broker,bench]'" in capsys.readouterr().err
