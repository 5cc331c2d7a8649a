"""Runs a classifier: returns, for each text, the probability that it violates.

It uses ONNX Runtime on the CPU, in batches of texts of similar length. It runs no code of the model: no library of
operators is registered, and weights come from the model's own bytes. One bad text does not change the scores of the
others. A score says whether the text was cut.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np

from stream_guard.core.errors import PolicyError
from stream_guard.judging.tiers.classifier.files import read_classifier_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stream_guard.judging.tiers.classifier.files import ClassifierFiles

__all__ = ["ClassifierModel", "Score", "load_classifier"]

_Array: TypeAlias = "NDArray[Any]"

_ROWS_MAX: Final = 64
"""Texts of one run: larger batches win nothing on a CPU."""
_CELLS_MAX: Final = 32_768
"""Texts times tokens of one run: what bounds the memory that a run takes."""
_IDS: Final = "input_ids"
_TOKEN_INPUTS: Final = (_IDS, "attention_mask", "token_type_ids")
_INTEGERS: Final = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_FLOATS: Final = ("tensor(float)", "tensor(double)", "tensor(float16)")
_LOG_FATAL: Final = 4
_SLACK: Final = 1e-4
"""How far rounding may take a probability out of 0 to 1."""


class Score(NamedTuple):
    """What the classifier makes of one text.

    Attributes:
        probability: that it violates, in [0, 1]; None where the model gave no probability, or failed on this text.
        truncated: whether the text was longer than the model takes, so that its end was not seen.
    """

    probability: float | None
    truncated: bool = False


class ClassifierModel:
    """A loaded classifier; made by :func:`load_classifier`. To be used from one thread at a time.

    Attributes:
        name: the manifest's.
        label: ``<name>@<first 12 hex digits of the model's sha256>``.
        identity: as :attr:`ClassifierFiles.identity`.
    """

    def __init__(self, files: ClassifierFiles, threads: int) -> None:
        self.name = files.manifest.name
        self.label = f"{files.manifest.name}@{files.manifest.sha256[:12]}"
        self.identity = files.identity
        self._files = files
        self._manifest = files.manifest
        self._path = files.folder / files.manifest.model
        self._session = self._open(threads)
        self._inputs = {node.name: node for node in self._session.get_inputs()}
        self._tokenizer: Any = self._open_tokenizer() if self._manifest.input == "tokens" else None
        self._pad_id = 0
        if self._tokenizer is None:
            self._check_text_input()
        else:
            self._check_token_inputs()
            self._set_up_tokenizer()
        self._output = self._choose_output()
        self._try()

    def score(self, texts: Sequence[str]) -> list[Score]:
        """Return a score for each text, in their order; never raises on account of a text."""
        scores = [Score(None)] * len(texts)
        if self._tokenizer is None:
            if self._manifest.lowercase:
                texts = [text.lower() for text in texts]
            for start in range(0, len(texts), _ROWS_MAX):
                part = texts[start : start + _ROWS_MAX]
                for row, value in enumerate(self._run_safely(list(part), self._feed_texts)):
                    scores[start + row] = Score(value)
            return scores
        encodings = self._encode(texts)
        for places in _like_lengths([len(e[0]) if e else 0 for e in encodings]):
            rows = [encodings[place] for place in places]
            known = [(place, row) for place, row in zip(places, rows, strict=True) if row]
            values = self._run_safely([row for _, row in known], self._feed_tokens)
            for (place, (_, _, truncated)), value in zip(known, values, strict=True):
                scores[place] = Score(value, truncated)
        return scores

    # What it is made of

    def _open(self, threads: int) -> Any:  # noqa: ANN401 - onnxruntime has no types
        # Otherwise the import alone sends events to Microsoft, and writes an identifier of the machine below HOME.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _LOG_FATAL  # what is wrong comes as an exception
        options.enable_mem_pattern = False  # plans are made for shapes that do not recur
        # Threads that spin while they wait would take their cores from the engine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return onnxruntime.InferenceSession(
                self._files.model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base but this
            text = _first_line(error)
            remedy = "export it again, with an opset that this version takes"
            if "locale" in text:
                remedy = (
                    "lower-casing inside the model needs a locale of the system; train with lowercase=False on "
                    "lower-cased texts, and write lowercase: true into classifier.yaml"
                )
            message = f"{self._path}: ONNX Runtime {onnxruntime.__version__} cannot load it ({text}); {remedy}"
            raise PolicyError(message) from error

    def _open_tokenizer(self) -> Any:  # noqa: ANN401 - the library has no types for what is used
        from tokenizers import Tokenizer

        # Its own threads would compete with the engine's; also, they do not survive a fork.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        path = self._files.folder / (self._manifest.tokenizer or "tokenizer.json")
        try:
            return Tokenizer.from_str(self._files.tokenizer.decode("utf-8"))
        except Exception as error:  # the library raises bare Exception
            message = (
                f"{path}: not a file of the tokenizers library ({_first_line(error)}); save it with "
                "tokenizer.save(FILE), or of a transformers tokenizer its backend_tokenizer"
            )
            raise PolicyError(message) from error

    def _set_up_tokenizer(self) -> None:
        padding = self._tokenizer.padding
        if padding is not None:
            self._pad_id = int(padding["pad_id"])
        # Rows are padded here, to the longest of their own batch, whatever length was declared.
        self._tokenizer.no_padding()
        limit, added = self._manifest.max_tokens, self._tokenizer.num_special_tokens_to_add(False)  # noqa: FBT003
        if limit is None or limit <= added:
            # The library would then not truncate at all.
            message = f"must be over {added}, which is what the tokenizer itself adds to every text"
            raise self._files.document.error(("max_tokens",), message)
        self._tokenizer.enable_truncation(limit)
        # A post that spells a control token is still text.
        self._tokenizer.encode_special_tokens = True

    def _check_text_input(self) -> None:
        names = list(self._inputs)
        node = self._inputs[names[0]] if len(names) == 1 else None
        if node is None or node.type != "tensor(string)" or len(node.shape) not in (1, 2):
            message = (
                f"input is text, and {self._manifest.model} takes {self._told_inputs()}; it must take one tensor of "
                "strings, with a row for each text: export the whole pipeline, vectorizer included"
            )
            raise self._files.document.error(("input",), message)

    def _check_token_inputs(self) -> None:
        strange = [
            name
            for name, node in self._inputs.items()
            if name not in _TOKEN_INPUTS or node.type not in _INTEGERS or len(node.shape) != 2  # noqa: PLR2004
        ]
        if strange or _IDS not in self._inputs:
            message = (
                f"input is tokens, and {self._manifest.model} takes {self._told_inputs()}; it must take {_IDS}, and "
                "may take attention_mask and token_type_ids: integers, a row for each text"
            )
            raise self._files.document.error(("input",), message)

    def _told_inputs(self) -> str:
        return (
            ", ".join(f"{n.name} {n.type} {list(n.shape)}" for n in self._inputs.values())
            or "nothing"
        )

    def _choose_output(self) -> str:
        outputs = {node.name: node for node in self._session.get_outputs()}
        told = ", ".join(f"{n.name} {n.type} {list(n.shape)}" for n in outputs.values())
        wanted = self._manifest.output
        if wanted is None and len(outputs) == 1:
            (wanted,) = outputs
        if wanted is None or wanted not in outputs:
            message = f"name one of the outputs of {self._manifest.model}: {told}"
            raise self._files.document.error(("output",), message)
        if outputs[wanted].type not in _FLOATS:
            message = f"{wanted} is {outputs[wanted].type}, not a tensor of floating-point numbers (there are: {told})"
            if "map" in outputs[wanted].type:
                message += "; export with options={id(pipeline): {'zipmap': False}}"
            raise self._files.document.error(("output",), message)
        return wanted

    def _try(self) -> None:
        """Run it on what is extreme, so that a contradiction shows now and not at a post."""
        if self._tokenizer is None:
            probes: list[tuple[str, Any]] = [("two texts", ["", "a plain sentence"])]
            feed: Any = self._feed_texts
        else:
            limit = self._manifest.max_tokens or 1
            last = max(self._tokenizer.get_vocab().values(), default=0)
            probes = [
                ("two texts", self._encode(["", "a plain sentence"])),
                (f"{limit:,} tokens (max_tokens)", [([0] * limit, [0] * limit, False)]),
                (f"the tokenizer's last id ({last:,})", [([last], [0], False)]),
            ]
            feed = self._feed_tokens
        for what, rows in probes:
            try:
                raw = self._raw(feed(rows))
            except Exception as error:  # as in _open
                message = (
                    f"{self._path}: fails on {what} ({_first_line(error)}); the model, its tokenizer and "
                    f"{self._files.document.source} must belong together"
                )
                raise PolicyError(message) from error
            self._check_raw(raw, len(rows))

    def _check_raw(self, raw: _Array, rows: int) -> None:
        columns = 1 if raw.ndim < 2 else raw.shape[-1]  # noqa: PLR2004
        if raw.ndim not in (1, 2) or raw.shape[0] != rows:
            message = f"{self._output} has the shape {list(raw.shape)} for {rows} texts; it must have a row for each"
            raise self._files.document.error(("output",), message)
        index = self._manifest.index
        if index is None and columns > 1:
            message = f"index is missing: {self._output} has {columns} columns; set it to the violating label's column"
            raise self._files.document.error(("output",), message)
        if index is not None and index >= columns:
            message = f"is {index}, and {self._output} has {columns} columns, counted from 0"
            raise self._files.document.error(("index",), message)
        if self._manifest.activation == "softmax" and columns == 1:
            message = f"softmax needs several columns, and {self._output} has one; use sigmoid"
            raise self._files.document.error(("activation",), message)
        if any(value is None for value in self._probabilities(raw)):
            message = f"{self._output} holds no probabilities; say softmax or sigmoid where it holds logits"
            raise self._files.document.error(("activation",), message)

    # Running it

    def _encode(self, texts: Sequence[str]) -> list[tuple[list[int], list[int], bool] | None]:
        """Return ids, type ids and whether they were cut, of each text; None where it cannot be encoded."""
        try:
            encodings = self._tokenizer.encode_batch_fast(list(texts))
        except Exception:  # noqa: BLE001 - bare exceptions of the library; its words may quote the text
            if len(texts) == 1:
                return [None]
            return [encoded for text in texts for encoded in self._encode([text])]
        return [(e.ids, e.type_ids, bool(e.overflowing)) for e in encodings]

    def _feed_texts(self, rows: list[str]) -> dict[str, _Array]:
        ((name, node),) = self._inputs.items()
        array = np.array(rows, dtype=object)
        return {name: array.reshape(-1, 1) if len(node.shape) == 2 else array}  # noqa: PLR2004

    def _feed_tokens(self, rows: list[tuple[list[int], list[int], bool]]) -> dict[str, _Array]:
        shape = (len(rows), max(1, *(len(ids) for ids, _, _ in rows)) if rows else 1)
        ids = np.full(shape, self._pad_id, np.int64)
        mask = np.zeros(shape, np.int64)
        types = np.zeros(shape, np.int64)
        for row, (row_ids, row_types, _) in enumerate(rows):
            ids[row, : len(row_ids)] = row_ids
            mask[row, : len(row_ids)] = 1
            types[row, : len(row_ids)] = row_types
        feed = dict(zip(_TOKEN_INPUTS, (ids, mask, types), strict=True))
        return {
            name: feed[name].astype(_INTEGERS[node.type], copy=False)
            for name, node in self._inputs.items()
        }

    def _raw(self, feed: dict[str, _Array]) -> _Array:
        (raw,) = self._session.run([self._output], feed)
        return np.asarray(raw)

    def _run_safely(self, rows: list[Any], feed: Any) -> list[float | None]:  # noqa: ANN401
        """Return each row's probability; where a batch fails, each alone, so that one cannot spoil the others."""
        if not rows:
            return []
        try:
            return self._probabilities(self._raw(feed(rows)))
        except Exception:  # noqa: BLE001 - as in _open; its words may quote the text
            if len(rows) == 1:
                return [None]
            return [value for row in rows for value in self._run_safely([row], feed)]

    def _probabilities(self, raw: _Array) -> list[float | None]:
        values = raw.astype(np.float64)
        values = values.reshape(len(values), -1)
        if self._manifest.activation == "softmax":
            values = np.exp(values - values.max(axis=1, keepdims=True))
            values = values / values.sum(axis=1, keepdims=True)
        column = values[:, self._manifest.index or 0]
        if self._manifest.activation == "sigmoid":
            column = 0.5 * (1.0 + np.tanh(0.5 * column))  # does not overflow
        # Not a number compares false, and so is none.
        within = (column >= -_SLACK) & (column <= 1.0 + _SLACK)
        clipped = np.clip(column, 0.0, 1.0).tolist()
        return [
            value if fine else None for value, fine in zip(clipped, within.tolist(), strict=True)
        ]


def load_classifier(folder: Path, *, threads: int = 1) -> ClassifierModel:
    """Load a classifier and try it.

    Args:
        folder: with a ``classifier.yaml``.
        threads: that one run may use.

    Raises:
        PolicyError: something in the folder is wrong; names file, line and remedy.
    """
    return ClassifierModel(read_classifier_files(folder), threads)


def _like_lengths(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield places of rows that make a batch: alike in length, few enough, small enough."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        # In order, so that this one is the longest of its batch.
        full = len(batch) == _ROWS_MAX or (len(batch) + 1) * lengths[place] > _CELLS_MAX
        if batch and full:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
