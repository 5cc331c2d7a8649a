"""Finds a classifier's folder, and reads its ``classifier.yaml``. Reads files; runs nothing.

    my-classifier/
      classifier.yaml     the manifest
      model.onnx          the complete model
      tokenizer.json      for a model that takes token ids

A file whose digest differs from the manifest's is rejected, and so is a name that leads out of the folder.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, model_validator

from stream_guard.core.english import did_you_mean
from stream_guard.core.errors import PolicyError
from stream_guard.judging.tiers.classifier.onnx_file import OnnxFault, check_onnx
from stream_guard.policies.yaml_document import YAML_BYTES_MAX, read_yaml

if TYPE_CHECKING:
    from stream_guard.policies.yaml_document import Document

__all__ = [
    "BUILTIN_PREFIX",
    "MODEL_BYTES_MAX",
    "TOKENIZER_BYTES_MAX",
    "ClassifierFiles",
    "ClassifierManifest",
    "classifier_folder",
    "read_classifier_files",
]

BUILTIN_PREFIX: Final = "builtin:"
MODEL_BYTES_MAX: Final = 1 << 30
"""The largest model, in bytes; a protocol buffer ends at twice that."""
TOKENIZER_BYTES_MAX: Final = 64 << 20
_MANIFEST: Final = "classifier.yaml"
_BUILTIN: Final = Path(__file__).parent / "models"

_File = Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$")]


class ClassifierManifest(BaseModel):
    """A ``classifier.yaml``.

    Attributes:
        name: of the classifier; on verdicts, in front of the model's digest.
        version: for people.
        model: the ONNX file, in the same folder.
        sha256: hex digest of that file, so that only the evaluated model runs.
        input: ``tokens``: the model takes ``input_ids`` of a tokenizer; ``text``: it takes the text itself, as models
            exported from scikit-learn do.
        tokenizer: the file of the tokenizers library, in the same folder; for ``tokens``.
        max_tokens: longest input, in tokens; for ``tokens``. What is over it is not seen.
        lowercase: whether the text is put in lower case first; for ``text``.
        output: name of the output that holds the probability; not needed where there is only one.
        index: which column of that output is "violates", from 0; not needed where it has one column.
        activation: what makes probabilities of that output: ``none`` where it holds them; where it holds logits,
            ``softmax`` over the columns, or ``sigmoid`` of the one.
        licence: under which the model may be used.
        source: where it comes from.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Annotated[StrictStr, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,39}$")]
    version: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9._+-]{1,64}$")]
    model: _File = "model.onnx"
    sha256: Annotated[StrictStr, Field(pattern=r"^[0-9a-f]{64}$")]
    input: Literal["tokens", "text"]
    tokenizer: _File | None = None
    max_tokens: Annotated[int, Field(ge=1, le=32_768)] | None = None
    lowercase: StrictBool = False
    output: Annotated[StrictStr, Field(min_length=1, max_length=200)] | None = None
    index: Annotated[int, Field(ge=0, le=10_000)] | None = None
    activation: Literal["none", "sigmoid", "softmax"] = "none"
    licence: Annotated[StrictStr, Field(min_length=1, max_length=200)]
    source: Annotated[StrictStr, Field(min_length=1, max_length=500)] | None = None

    @model_validator(mode="after")
    def _fits_its_input(self) -> ClassifierManifest:
        if self.input == "tokens":
            if self.max_tokens is None:
                message = "input is tokens, so max_tokens is needed: the longest input that the model takes"
                raise ValueError(message)
            if self.lowercase:
                message = "lowercase is for input: text; with tokens the tokenizer's file says it"
                raise ValueError(message)
        elif self.tokenizer is not None or self.max_tokens is not None:
            message = "tokenizer and max_tokens are for input: tokens; remove them, or change input"
            raise ValueError(message)
        return self


@dataclass(slots=True, frozen=True)
class ClassifierFiles:
    """One reading of a classifier's folder, checked as far as can be without running it.

    Attributes:
        folder: where it lies.
        document: the manifest's data and lines.
        manifest: what it declares.
        model: the ONNX file's bytes, of the declared digest.
        tokenizer: the tokenizer's bytes; empty where none is used.
    """

    folder: Path
    document: Document
    manifest: ClassifierManifest
    model: bytes
    tokenizer: bytes = b""

    @property
    def identity(self) -> tuple[str, bytes]:
        """What is equal exactly where two readings make the same classifier."""
        text = hashlib.sha256(self.tokenizer).digest()
        return (repr(self.manifest), text)


def classifier_folder(reference: str, base: Path) -> Path:
    """Return the folder that a reference leads to.

    Args:
        reference: ``builtin:NAME``, or a path.
        base: what a relative path starts from.

    Raises:
        PolicyError: there is no builtin of that name.
    """
    if not reference.startswith(BUILTIN_PREFIX):
        return base / Path(reference).expanduser()
    name = reference.removeprefix(BUILTIN_PREFIX)
    known = sorted(folder.name for folder in _BUILTIN.iterdir() if (folder / _MANIFEST).is_file())
    if name not in known:
        builtins = ", ".join(BUILTIN_PREFIX + each for each in known)
        message = (
            f"there is no {reference!r}{did_you_mean(name, known)}; there are: {builtins}; or name a "
            "folder by its path"
        )
        raise PolicyError(message)
    return _BUILTIN / name


def read_classifier_files(folder: Path) -> ClassifierFiles:
    """Read a classifier's folder.

    Raises:
        PolicyError: a file is missing, too large or not what the manifest says; names file, line and remedy.
    """
    source = folder / _MANIFEST
    content = _read(
        source,
        YAML_BYTES_MAX,
        "a classifier is a folder with this file; see docs/guides/classifier.md",
    )
    document = read_yaml(content, str(source))
    manifest = document.check(ClassifierManifest)
    model = _read(folder / manifest.model, MODEL_BYTES_MAX, f"{source} names it under model")
    found = hashlib.sha256(model).hexdigest()
    if found != manifest.sha256:
        message = (
            f"{manifest.model} has the sha256 {found}, which is another; if that is the model that you mean, write "
            "this digest here"
        )
        raise document.error(("sha256",), message)
    try:
        check_onnx(model)
    except OnnxFault as fault:
        message = f"{folder / manifest.model}: {fault}"
        raise PolicyError(message) from fault
    tokenizer = b""
    if manifest.input == "tokens":
        name = manifest.tokenizer or "tokenizer.json"
        remedy = f"{source} says input: tokens, which needs the tokenizer's file of the model"
        tokenizer = _read(folder / name, TOKENIZER_BYTES_MAX, remedy)
    return ClassifierFiles(folder, document, manifest, model, tokenizer)


def _read(path: Path, bytes_max: int, remedy: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
    except FileNotFoundError as error:
        message = f"{path}: no such file; {remedy}"
        raise PolicyError(message) from error
    except OSError as error:
        message = (
            f"{path}: cannot be read ({error.strerror}); it must be a file that this user may read"
        )
        raise PolicyError(message) from error
    if len(content) > bytes_max:
        message = f"{path}: over {bytes_max:,} bytes; use a smaller model, or the safeguard alone"
        raise PolicyError(message)
    return content
