"""The model's own tokenizer, taken apart: one that knows no control tokens, and the control tokens' ids.

What it must never do: import vLLM or transformers; fall back to a tokenizer that may be another model's.

Tokenizers match control tokens in raw text, whatever ``add_special_tokens`` says. So ``tokenizer.json`` is
read, its added tokens are taken out, and only then is a tokenizer made of it: no text can match any more.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from tokenizers import Tokenizer as FastTokenizer

from stream_guard.core.errors import EngineError
from stream_guard.judging.families.harmony.tokens import MARKERS, ControlTokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.settings import EngineSettings

SUPPORTED_ARCHITECTURES: Final = ("GptOssForCausalLM",)


class HarmonyTokenizer:
    """A tokenizer whose text is only ever text.

    Attributes:
        control: ids of the control tokens.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        """Make it of a parsed ``tokenizer.json``, which is changed.

        Raises:
            EngineError: it lacks one of harmony's control tokens, or text can still become one.
        """
        added = {
            str(token["content"]): int(token["id"]) for token in document.get("added_tokens", ())
        }
        missing = [name for name in MARKERS if name not in added]
        if missing:
            message = (
                f"the model's tokenizer lacks {', '.join(missing)}; Stream Guard needs a model that speaks harmony, "
                "such as openai/gpt-oss-safeguard-20b (engine.model)"
            )
            raise EngineError(message)
        self.control = ControlTokens(
            start=added["<|start|>"],
            message=added["<|message|>"],
            channel=added["<|channel|>"],
            constrain=added["<|constrain|>"],
            end=added["<|end|>"],
            return_=added["<|return|>"],
            call=added["<|call|>"],
            every=frozenset(added.values()),
        )
        document["added_tokens"] = []
        document["post_processor"] = None
        document["truncation"] = None
        document["padding"] = None
        vocabulary = document["model"]["vocab"]
        for name in added:
            # Small vocabularies list them there too, where a merge or a whole word could reach them.
            vocabulary.pop(name, None)
        self._names = {token: name for name, token in added.items()}
        self._tokenizer = FastTokenizer.from_str(orjson.dumps(document).decode())
        if not self.control.every.isdisjoint(self.encode("".join(added))):
            message = "the model's tokenizer turns text into control tokens; it is not safe to use"
            raise EngineError(message)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; a lone surrogate, which has no UTF-8, becomes a question mark."""
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        except TypeError:
            ids = self._tokenizer.encode(
                text.encode("utf-8", "replace").decode(), add_special_tokens=False
            ).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; control tokens and unknown ids are left out."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def show(self, ids: Sequence[int]) -> str:
        """Return the text of ids with control tokens by their names, for people; never to be encoded again."""
        parts: list[str] = []
        run: list[int] = []
        for token in ids:
            name = self._names.get(token)
            if name is None:
                run.append(token)
                continue
            parts += [self.decode(run), name]
            run = []
        return "".join([*parts, self.decode(run)])

    def token_id(self, text: str) -> int | None:
        """Return the id of a text that is one token, or None."""
        ids = self.encode(text)
        return ids[0] if len(ids) == 1 else None


def model_file(settings: EngineSettings, name: str) -> Path:
    """Return the path of one of the model's files, fetched from the hub if it is not a folder.

    Raises:
        EngineError: it is not there, or the hub cannot be reached.
    """
    model = settings.model
    folder = Path(model).expanduser()
    if folder.is_dir():
        path = folder / name
        if not path.is_file():
            message = f"engine.model: {model} has no {name}; is it a model's folder?"
            raise EngineError(message)
        return path
    if model.startswith(("/", ".", "~")):
        message = (
            f"engine.model: {model} is not a folder; give a model's folder, or its name on a hub"
        )
        raise EngineError(message)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(model, name, revision=settings.revision))
    except HFValidationError as error:
        message = f"engine.model: {model!r} is neither a folder nor a model's name on a hub"
        raise EngineError(message) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        revision = f" at revision {settings.revision}" if settings.revision else ""
        message = (
            f"engine.model: cannot fetch {name} of {model}{revision} ({type(error).__name__}); "
            "check the name, the network and HF_TOKEN, or give a folder"
        )
        raise EngineError(message) from error


def load_tokenizer(settings: EngineSettings) -> HarmonyTokenizer:
    """Load the tokenizer of ``engine.model``.

    Raises:
        EngineError: there is none, it cannot be read, or it does not speak harmony.
    """
    path = model_file(settings, "tokenizer.json")
    try:
        document = orjson.loads(path.read_bytes())
        return HarmonyTokenizer(document)
    except EngineError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exception
        message = f"engine.model: {path} is not a tokenizer ({type(error).__name__})"
        raise EngineError(message) from error


def tokenizer_sha256(settings: EngineSettings) -> str:
    """Return the digest of the model's ``tokenizer.json``, in hex. Raises EngineError where there is none."""
    return hashlib.sha256(model_file(settings, "tokenizer.json").read_bytes()).hexdigest()


def read_config(settings: EngineSettings) -> dict[str, Any]:
    """Return the model's ``config.json``.

    Raises:
        EngineError: it is missing, is not JSON, or names an architecture that is not supported.
    """
    path = model_file(settings, "config.json")
    try:
        config = orjson.loads(path.read_bytes())
        architectures = list(config["architectures"])
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        message = f"engine.model: {path} is not a model's config.json"
        raise EngineError(message) from error
    if not set(architectures) & set(SUPPORTED_ARCHITECTURES):
        message = (
            f"engine.model: {settings.model} is a {', '.join(architectures) or 'nameless model'}; "
            f"supported: {', '.join(SUPPORTED_ARCHITECTURES)}"
        )
        raise EngineError(message)
    return dict(config)
