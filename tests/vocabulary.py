"""The full o200k_harmony vocabulary in the form in which gpt-oss ships it, and a model with random weights."""

# ruff: noqa: ANN401 - openai_harmony has no types

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from stream_guard.judging.families.harmony.tokenizer import HarmonyTokenizer, load_tokenizer
from stream_guard.settings import EngineSettings
from stream_guard.testing.random_model import make_random_model

if TYPE_CHECKING:
    from pathlib import Path

# The published pattern of the o200k vocabulary.
_PATTERNS = [
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
]
_TEXT_TOKENS = 199_998
_ALL_TOKENS = 201_088


@pytest.fixture(scope="session")
def harmony_encoding() -> Any:
    """OpenAI's own encoding, as an oracle."""
    import openai_harmony

    return openai_harmony.load_harmony_encoding(openai_harmony.HarmonyEncodingName.HARMONY_GPT_OSS)


@pytest.fixture(scope="session")
def vocabulary(harmony_encoding: Any) -> list[bytes]:
    """Bytes of each token of the full o200k_harmony vocabulary."""
    inner = harmony_encoding._inner
    return [bytes(inner.decode_bytes([token])) for token in range(_ALL_TOKENS)]


@pytest.fixture(scope="session")
def full_model(vocabulary: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the full vocabulary's tokenizer, in the form in which gpt-oss ships it."""
    folder = tmp_path_factory.mktemp("full")
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer_document(vocabulary)), "utf-8")
    return folder


@pytest.fixture(scope="session")
def full_tokenizer(full_model: Path) -> HarmonyTokenizer:
    """The full vocabulary's tokenizer, loaded as a model's is."""
    return load_tokenizer(EngineSettings(model=str(full_model)))


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with random weights."""
    folder = tmp_path_factory.mktemp("model") / "random"
    make_random_model(folder)
    return folder


def _tokenizer_document(vocabulary: list[bytes]) -> dict[str, Any]:
    ranks = {token: rank for rank, token in enumerate(vocabulary[:_TEXT_TOKENS])}
    letters = _byte_letters()

    def spell(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = []
    for token in vocabulary[:_TEXT_TOKENS]:
        pairs = [
            (ranks[token[:at]], ranks[token[at:]], at)
            for at in range(1, len(token))
            if token[:at] in ranks and token[at:] in ranks
        ]
        merges += [[spell(token[:at]), spell(token[at:])] for _, _, at in sorted(pairs)]
    added = [
        {
            "id": token,
            "content": vocabulary[token].decode(),
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token in range(_TEXT_TOKENS, _ALL_TOKENS)
    ]
    split = {
        "type": "Split",
        "pattern": {"Regex": "|".join(_PATTERNS)},
        "behavior": "Isolated",
        "invert": False,
    }
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": None,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {spell(token): rank for token, rank in ranks.items()},
            "merges": merges,
        },
    }


def _byte_letters() -> list[str]:
    """The printable letter that stands for each byte in byte-level vocabularies, after GPT-2's."""
    plain = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256))
    return [chr(byte) if byte in plain else chr(256 + next(others)) for byte in range(256)]
