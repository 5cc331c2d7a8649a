"""Writes the classifier that ships, in ``stream_guard/judging/tiers/classifier/models/toxicity``.

One command, no randomness.

The weights come from the package alt-profanity-check (MIT): a TF-IDF bag of words and five linear support vector
machines, each with a sigmoid. Their mean is the probability. This script writes the same arithmetic as an ONNX graph,
and the same tokenization as a ``tokenizer.json``. It compares both with scikit-learn on sentences that the tests
keep. It unpickles only a file whose digest is known.

    python -m venv /tmp/classifier && /tmp/classifier/bin/pip install -r tools/classifier/requirements.txt
    /tmp/classifier/bin/python tools/classifier/build.py
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "stream_guard" / "judging" / "tiers" / "classifier" / "models" / "toxicity"
FIXTURE = ROOT / "tests" / "unit" / "data" / "toxicity_parity.json"
SOURCE = "alt-profanity-check"
SOURCE_VERSION = "1.9.1"
DIGESTS = {  # of the files in that version, which are pickles, and so programs
    "profanity_check/data/vectorizer.joblib": "19c5200dc6a41f026e0558e2f164f5fe8d8f58e502b46b37e4385037fcfa4831",
    "profanity_check/data/model.joblib": "aeafc04849d4d93db4721cf30a86ebf22085595294b8a07d51918e7fa98f538b",
}
VERSION = "1"
MAX_TOKENS = 2_048
OPSET, IR_VERSION = 17, 8  # old enough for every ONNX Runtime in the product's range
UNKNOWN = "[UNK]"
# Python's \w is letters, numbers and the underscore; `(?u)\b\w\w+\b` is two or more of them in a row.
WORD = r"[\p{L}\p{N}_]{2,}"
TOLERANCE = 1e-5
SENTENCES = ROOT / "tools" / "classifier" / "sentences.txt"


def load_source() -> list[Any]:
    """Return the vectorizer and the model. Exits if the package or its files are not the expected ones."""
    distribution = metadata.distribution(SOURCE)
    if distribution.version != SOURCE_VERSION:
        sys.exit(
            f"{SOURCE} {distribution.version} is installed; install {SOURCE}=={SOURCE_VERSION}"
        )
    loaded = []
    for name, expected in DIGESTS.items():
        content = Path(str(distribution.locate_file(name))).read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            sys.exit(f"{name}: its sha256 is {found}, not {expected}: not unpickled")
        loaded.append(joblib.load(io.BytesIO(content)))
    return loaded


def make_tokenizer(vectorizer: Any) -> Tokenizer:
    """Return the vectorizer's tokenisation: lower case, words of two and more, unknown ones as one id.

    Stop words need no rule: none is in the vocabulary.
    """
    settings = vectorizer.get_params()
    expected = {
        "analyzer": "word", "binary": False, "lowercase": True, "ngram_range": (1, 1), "norm": "l2",
        "preprocessor": None, "strip_accents": None, "sublinear_tf": False, "token_pattern": r"(?u)\b\w\w+\b",
        "tokenizer": None, "use_idf": True,
    }  # fmt: skip
    differing = {key: settings[key] for key, value in expected.items() if settings[key] != value}
    if differing:
        sys.exit(f"the vectorizer is another than this script was written for: {differing}")
    vocabulary = {UNKNOWN: 0}
    vocabulary.update(
        (word, int(column) + 1)
        for word, column in sorted(vectorizer.vocabulary_.items(), key=lambda item: item[1])
    )
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
    return tokenizer


def make_model(vectorizer: Any, model: Any) -> onnx.ModelProto:
    """Return a graph from ``input_ids`` (int64, posts x tokens) to ``probabilities`` (float, posts x 2)."""
    words = len(vectorizer.vocabulary_)
    parts = model.calibrated_classifiers_
    coefficients = np.concatenate([part.estimator.coef_ for part in parts]).T  # words x parts
    intercepts = np.array([part.estimator.intercept_[0] for part in parts])
    slopes = np.array([part.calibrators[0].a_ for part in parts])
    offsets = np.array([part.calibrators[0].b_ for part in parts])
    # scikit-learn: p = 1 / (1 + exp(a * margin + b)), which is sigmoid(-a * margin - b).
    weights = coefficients * -slopes
    biases = intercepts * -slopes - offsets
    constants = {
        "weights": weights, "biases": biases, "least": np.array([1e-12]), "one": np.array([1.0]),
    }  # fmt: skip
    nodes = [
        helper.make_node(
            "TfIdfVectorizer", ["input_ids"], ["tf_idf"], mode="TFIDF", min_gram_length=1, max_gram_length=1,
            max_skip_count=0, ngram_counts=[0], ngram_indexes=list(range(words)),
            pool_int64s=list(range(1, words + 1)), weights=vectorizer.idf_.tolist(),
        ),
        # The rows' length is divided by after the product, which is a hundred times smaller.
        helper.make_node("ReduceL2", ["tf_idf"], ["length"], axes=[1], keepdims=1),
        helper.make_node("Max", ["length", "least"], ["divisor"]),
        helper.make_node("MatMul", ["tf_idf", "weights"], ["product"]),
        helper.make_node("Div", ["product", "divisor"], ["direction"]),
        helper.make_node("Add", ["direction", "biases"], ["margins"]),
        helper.make_node("Sigmoid", ["margins"], ["each"]),
        helper.make_node("ReduceMean", ["each"], ["violates"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["one", "violates"], ["safe"]),
        helper.make_node("Concat", ["safe", "violates"], ["probabilities"], axis=1),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "toxicity",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["posts", "tokens"])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["posts", 2])],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in constants.items()],
    )
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="stream-guard",
    )
    onnx.checker.check_model(made, full_check=True)
    return made


def manifest(model_sha256: str) -> str:
    """Return the text of ``classifier.yaml``."""
    return (
        "# Written by tools/classifier/build.py.\n"
        f'name: toxicity\nversion: "{VERSION}"\nmodel: model.onnx\nsha256: {model_sha256}\n'
        f"input: tokens\nmax_tokens: {MAX_TOKENS}\noutput: probabilities\nindex: 1\nactivation: none\n"
        f"licence: MIT\nsource: {SOURCE} {SOURCE_VERSION}\n"
    )


def main() -> None:
    """Write the folder and the tests' figures."""
    vectorizer, model = load_source()
    tokenizer = make_tokenizer(vectorizer)
    content = make_model(vectorizer, model).SerializeToString(deterministic=True)
    sentences = [
        line.encode().decode("unicode_escape") if line.isascii() else line
        for line in SENTENCES.read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    expected = model.predict_proba(vectorizer.transform(sentences))[:, 1]
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    worst = 0.0
    for sentence, probability in zip(sentences, expected, strict=True):
        ids = np.array([tokenizer.encode(sentence).ids or [0]], dtype=np.int64)
        (rows,) = session.run(None, {"input_ids": ids})
        worst = max(worst, abs(float(rows[0, 1]) - probability))
    if worst > TOLERANCE:
        sys.exit(f"the graph differs from scikit-learn by {worst:.2g}, over {TOLERANCE}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    FIXTURE.parent.mkdir(parents=True, exist_ok=True)
    (FOLDER / "model.onnx").write_bytes(content)
    (FOLDER / "tokenizer.json").write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
    (FOLDER / "classifier.yaml").write_text(
        manifest(hashlib.sha256(content).hexdigest()), encoding="utf-8"
    )
    pairs = [[text, round(float(p), 9)] for text, p in zip(sentences, expected, strict=True)]
    FIXTURE.write_text(json.dumps(pairs, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    for file in sorted(FOLDER.iterdir()):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        print(f"{digest}  {file.name} ({file.stat().st_size:,} bytes)")
    print(f"largest difference from scikit-learn on {len(sentences)} sentences: {worst:.2g}")


if __name__ == "__main__":
    main()
