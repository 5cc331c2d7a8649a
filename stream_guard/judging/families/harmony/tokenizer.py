"""Loads the model's own tokenizer, in two parts: a tokenizer without control tokens, and the control tokens' ids.

Tokenizers match control tokens in raw text, whatever ``add_special_tokens`` says. So this module reads
``tokenizer.json``, removes its added tokens, and only then builds the tokenizer: no text can match a control token.
It imports neither vLLM nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from tokenizers import Tokenizer as FastTokenizer

from stream_guard.core.errors import EngineError
from stream_guard.judging.families.harmony.tokens import MARKERS, ControlTokens
from stream_guard.judging.families.model_files import model_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.settings import EngineSettings


class HarmonyTokenizer:
    """A tokenizer that never turns text into a control token.

    Attributes:
        control: ids of the control tokens.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        """Build it from a parsed ``tokenizer.json``, which is modified.

        Raises:
            EngineError: a control token of harmony is missing, or text can still become one.
        """
        added = {
            str(token["content"]): int(token["id"]) for token in document.get("added_tokens", ())
        }
        missing = [name for name in MARKERS if name not in added]
        if missing:
            message = (
                f"engine.model: the model's tokenizer lacks {', '.join(missing)}; choose a model that uses the harmony "
                "format, such as openai/gpt-oss-safeguard-20b"
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
            # Small vocabularies also list them here, where a merge or a whole word could produce them.
            vocabulary.pop(name, None)
        known = {*vocabulary.values(), *self.control.every}
        self._known_max = max(known)
        self._unknown = frozenset(range(self._known_max)) - known
        self._names = {token: name for name, token in added.items()}
        self._tokenizer = FastTokenizer.from_str(orjson.dumps(document).decode())
        if not self.control.every.isdisjoint(self.encode("".join(added))):
            message = "engine.model: its tokenizer turns text into control tokens, which is not safe; choose another"
            raise EngineError(message)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text. A lone surrogate has no UTF-8 form and becomes a question mark."""
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        except TypeError:
            ids = self._tokenizer.encode(
                text.encode("utf-8", "replace").decode(), add_special_tokens=False
            ).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without control tokens and unknown ids."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def show(self, ids: Sequence[int]) -> str:
        """Return the text of ids with control tokens by their names. For people; do not encode it again."""
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

    def knows(self, ids: Sequence[int]) -> bool:
        """Return whether each id has a token. A model may have more ids than its tokenizer."""
        return max(ids, default=0) <= self._known_max and self._unknown.isdisjoint(ids)

    def token_id(self, text: str) -> int | None:
        """Return the id of a text that is exactly one token, or None."""
        ids = self.encode(text)
        return ids[0] if len(ids) == 1 else None


def load_tokenizer(settings: EngineSettings) -> HarmonyTokenizer:
    """Load the tokenizer of ``engine.model``.

    Raises:
        EngineError: it is missing, cannot be read, or lacks harmony's control tokens.
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
