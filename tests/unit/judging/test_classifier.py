"""The classifier tier settles by two thresholds, and what is wrong with a classifier shows before a post does."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from stream_guard.core.errors import PolicyError, SettingsError
from stream_guard.judging.tiers.classifier.files import (
    ClassifierManifest,
    classifier_folder,
    read_classifier_files,
)
from stream_guard.judging.tiers.classifier.model import ClassifierModel, Score, load_classifier
from stream_guard.judging.tiers.classifier.onnx_file import OnnxFault, check_onnx
from stream_guard.judging.tiers.classifier.tier import ClassifierTier, decide
from stream_guard.judging.tiers.tier import Escalated, Settled
from stream_guard.policies.metadata import PolicyMeta
from stream_guard.policies.policy import Policy, PolicySet, make_policy
from stream_guard.policies.yaml_document import read_yaml
from stream_guard.records.post import Post

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "stream_guard" / "judging" / "tiers" / "classifier" / "models" / "toxicity"
PARITY = json.loads((Path(__file__).parent / "data" / "toxicity_parity.json").read_text("utf-8"))
TEXT = b"# Spam\n\n## Safe (S0 - clean)\n\n## Banned (S1 - adverts)\n- S1.a bulk\n\nAnswer `BAD` or `GOOD`.\n"
TWO = b"# Spam\n\n## Safe (S0 - ok)\n\n## Banned (S1 - ads)\n\n## Banned (S2 - scams)\n\nAnswer `BAD` or `GOOD`.\n"
THRESHOLDS = "thresholds: {safe_below: 0.1, violates_above: 0.9}\n"


def post(text: str, title: str | None = None) -> Post:
    encoded = text.encode("utf-8", "surrogatepass")
    return Post("p", text, hashlib.sha256(encoded).hexdigest(), len(encoded), title=title)


def declared(yaml: str, text: bytes = TEXT, folder: Path | None = None) -> Policy:
    source = None if folder is None else str(folder / "policy.md")
    return make_policy("spam", text, metadata=yaml.encode(), source=source)


def of(policy: Policy) -> PolicySet:
    return PolicySet({policy.id: policy})


# Models made for the tests


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[Any]]],
    outputs: Mapping[str, tuple[int, Sequence[Any]]],
    constants: Mapping[str, np.ndarray[Any, Any]] = {},
    *,
    domains: Iterable[str] = (),
) -> bytes:
    made = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
        [helper.make_tensor_value_info(n, t, s) for n, (t, s) in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [
        helper.make_opsetid("", 17),
        *(helper.make_opsetid(domain, 1) for domain in domains),
    ]
    return helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()


IDS = {"input_ids": (TensorProto.INT64, ["n", "s"])}
ROWS = {"out": (TensorProto.FLOAT, ["n", 1])}


def by_table(table: Sequence[float]) -> bytes:
    """Return a model whose output is the largest of its ids' values."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["each"]),
        helper.make_node("ReduceMax", ["each"], ["out"], axes=[1], keepdims=1),
    ]
    return graph(
        nodes,
        IDS,
        ROWS,
        {"table": np.array(table, np.float32)},
    )


def words(*vocabulary: str, brackets: bool = False) -> str:
    tokenizer = Tokenizer(
        models.WordLevel({word: at for at, word in enumerate(vocabulary)}, unk_token=vocabulary[0])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if "[PAD]" in vocabulary:
        tokenizer.enable_padding(pad_id=vocabulary.index("[PAD]"))
    if brackets:
        tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A <s>", special_tokens=[("<s>", len(vocabulary))]
        )
    return tokenizer.to_str()


WORDS = ("?", "good", "bad", "so-so", "[PAD]")
TABLE = (0.5, 0.01, 0.99, 0.5, 0.0)


def write(
    folder: Path,
    content: bytes | None = None,
    words_file: str | None = words(*WORDS),
    **manifest: str | int | bool | None,
) -> Path:
    """Write a classifier, by default one whose words have the probabilities of the table."""
    folder.mkdir(parents=True, exist_ok=True)
    content = by_table(TABLE) if content is None else content
    (folder / "model.onnx").write_bytes(content)
    if words_file is not None:
        (folder / "tokenizer.json").write_text(words_file, "utf-8")
    keys: dict[str, Any] = {
        "name": "words",
        "version": "1",
        "sha256": hashlib.sha256(content).hexdigest(),
        "input": "tokens",
        "max_tokens": 4,
        "licence": "MIT",
    }
    keys |= manifest
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in keys.items() if value is not None]
    (folder / "classifier.yaml").write_text("".join(lines), "utf-8")
    return folder


def refused(folder: Path) -> str:
    """Return what is said of a folder, in place of the folder's own name, '...'."""
    with pytest.raises(PolicyError) as raised:
        load_classifier(folder)
    return str(raised.value).replace(str(folder), "...")


# The shipped one


@pytest.fixture(scope="module")
def shipped() -> ClassifierModel:
    return load_classifier(SHIPPED)


def test_shipped_one_gives_the_probabilities_of_scikit_learn(shipped: ClassifierModel) -> None:
    scores = shipped.score([text for text, _ in PARITY])
    for (_, expected), score in zip(PARITY, scores, strict=True):
        assert score.probability == pytest.approx(expected, abs=1e-5)


def test_loading_one_sends_nothing_and_leaves_no_identifier_of_the_machine(tmp_path: Path) -> None:
    """ONNX Runtime writes a device id below HOME where its telemetry starts, which its import does."""
    program = (
        "import pathlib, sys; from stream_guard.judging.tiers.classifier.model import load_classifier; "
        "print(load_classifier(pathlib.Path(sys.argv[1])).score(['a text'])[0].probability)"
    )
    names = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    env = {key: value for key, value in os.environ.items() if key not in names}
    env["HOME"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", program, SHIPPED],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0 < float(done.stdout) < 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_shipped_one_is_as_its_card_says(shipped: ClassifierModel) -> None:
    card = (SHIPPED / "README.md").read_text("utf-8")
    for name in ("model.onnx", "tokenizer.json"):
        assert hashlib.sha256((SHIPPED / name).read_bytes()).hexdigest() in card
    assert read_classifier_files(SHIPPED).manifest.licence == "MIT"
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 2_000_000
    unknown = shipped.score(["zzzyx qqqqv"])[0].probability
    assert unknown is not None
    assert f"gets {unknown:.3f}**" in card
    rows = re.findall(r"^\| `(.*)` \| (\d\.\d{3}) \|$", card, re.MULTILINE)
    assert len(rows) == 7
    for text, figure in rows:
        assert f"{shipped.score([text])[0].probability:.3f}" == figure


def test_shipped_one_separates_insults_from_thanks(shipped: ClassifierModel) -> None:
    insult, thanks = shipped.score(["you stupid idiot", "thank you, that was a great match"])
    assert insult.probability is not None
    assert thanks.probability is not None
    assert insult.probability > 0.95
    assert thanks.probability < 0.03


@given(st.text(max_size=300))
@settings(deadline=None, max_examples=200)
def test_shipped_one_gives_a_probability_to_any_text(text: str) -> None:
    global _MODEL  # noqa: PLW0603 - loaded once for all examples
    _MODEL = _MODEL or load_classifier(SHIPPED)
    (score,) = _MODEL.score([text])
    assert score.probability is not None
    assert 0.0 <= score.probability <= 1.0


_MODEL: ClassifierModel | None = None


def test_a_score_does_not_depend_on_the_company(shipped: ClassifierModel) -> None:
    texts = [text for text, _ in PARITY] * 4
    together = shipped.score(texts)
    alone = [shipped.score([text])[0] for text in texts]
    for one, other in zip(together, alone, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-6)


# What is decided


@pytest.mark.parametrize(
    ("probability", "reason"),
    [
        (0.0, "below:0.1"),
        (math.nextafter(0.1, 0), "below:0.1"),
        (0.1, "between"),
        (0.9, "between"),
        (math.nextafter(0.9, 1), "above:0.9"),
        (1.0, "above:0.9"),
    ],
)
def test_the_thresholds_themselves_escalate(
    shipped: ClassifierModel, probability: float, reason: str
) -> None:
    outcome = decide(Score(probability), declared(THRESHOLDS), shipped)
    assert outcome.reason == reason
    assert isinstance(outcome, Settled) is (reason != "between")


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_thresholds_left_out_settle_nothing(shipped: ClassifierModel, probability: float) -> None:
    assert decide(Score(probability), declared("thresholds: {}"), shipped) == Escalated("between")


def test_equal_thresholds_leave_one_number_between(shipped: ClassifierModel) -> None:
    policy = declared("thresholds: {safe_below: 0.5, violates_above: 0.5}")
    assert decide(Score(0.5), policy, shipped) == Escalated("between")
    assert isinstance(decide(Score(0.49), policy, shipped), Settled)
    assert isinstance(decide(Score(0.51), policy, shipped), Settled)


def test_settled_says_what_decided_and_how_sure_it_is(shipped: ClassifierModel) -> None:
    outcome = decide(Score(0.95), declared(THRESHOLDS), shipped)
    assert isinstance(outcome, Settled)
    digest = hashlib.sha256((SHIPPED / "model.onnx").read_bytes()).hexdigest()
    assert outcome.model == f"toxicity@{digest[:12]}"
    assert (outcome.confidence, outcome.confidence_method) == (0.95, "classifier:toxicity")
    assert (outcome.answer.decision, outcome.answer.category) == ("violates", "S1")
    assert outcome.answer.parse_status == "not_applicable"


def test_safe_comes_with_the_only_safe_category(shipped: ClassifierModel) -> None:
    outcome = decide(Score(0.01), declared(THRESHOLDS), shipped)
    assert isinstance(outcome, Settled)
    assert (outcome.answer.decision, outcome.answer.category) == ("safe", "S0")
    assert outcome.confidence == 0.01


def test_a_policy_without_categories_is_settled_without_one(shipped: ClassifierModel) -> None:
    policy = declared(THRESHOLDS, b"No adverts.")
    for probability, decision in ((0.99, "violates"), (0.01, "safe")):
        outcome = decide(Score(probability), policy, shipped)
        assert isinstance(outcome, Settled)
        assert (outcome.answer.decision, outcome.answer.category) == (decision, None)


def test_of_several_categories_one_must_be_declared(shipped: ClassifierModel) -> None:
    assert decide(Score(0.99), declared(THRESHOLDS, TWO), shipped) == Escalated(
        "above_without_category"
    )
    chosen = declared("thresholds: {violates_above: 0.9, category: S2}\n", TWO)
    outcome = decide(Score(0.99), chosen, shipped)
    assert isinstance(outcome, Settled)
    assert outcome.answer.category == "S2"


@pytest.mark.parametrize("category", ["S0", "S3"])
def test_the_declared_category_must_violate(category: str) -> None:
    with pytest.raises(PolicyError, match=r"policy.yaml:2: thresholds.category: .*use one of: S1"):
        declared(f"thresholds:\n  category: {category}\n")


def test_a_classifier_without_thresholds_is_refused() -> None:
    with pytest.raises(PolicyError, match="has no effect without thresholds; declare thresholds"):
        declared("classifier: builtin:toxicity")


def test_what_was_cut_off_is_not_safe(shipped: ClassifierModel) -> None:
    policy = declared(THRESHOLDS)
    assert decide(Score(0.01, truncated=True), policy, shipped) == Escalated("truncated")
    assert isinstance(decide(Score(0.99, truncated=True), policy, shipped), Settled)


def test_without_a_score_it_escalates(shipped: ClassifierModel) -> None:
    assert decide(Score(None), declared(THRESHOLDS), shipped) == Escalated("no_score")


# The tier


def test_it_answers_for_each_post_in_order(tmp_path: Path) -> None:
    write(tmp_path / "words")
    policy = declared("classifier: words\n" + THRESHOLDS, folder=tmp_path)
    tier = ClassifierTier()
    tier.prepare(of(policy))
    texts = ["good", "bad", "unheard of", "good good good good bad", "", "good bad"] * 40
    outcomes = tier.screen([post(text) for text in texts], policy)
    reasons = ["below:0.1", "above:0.9", "between", "truncated", "below:0.1", "above:0.9"] * 40
    assert [outcome.reason for outcome in outcomes] == reasons


def test_title_and_text_are_read(tmp_path: Path) -> None:
    policy = declared(f"classifier: {write(tmp_path)}\n" + THRESHOLDS)
    outcomes = ClassifierTier().screen(
        [post("good", title="bad"), post("good", title="good")], policy
    )
    assert [outcome.reason for outcome in outcomes] == ["above:0.9", "below:0.1"]


def test_a_policy_without_thresholds_escalates() -> None:
    tier = ClassifierTier("builtin:toxicity")
    outcomes = tier.screen([post("you idiot"), post("hello")], declared("effort: low"))
    assert list(outcomes) == [Escalated("no_thresholds")] * 2


def test_the_default_is_for_policies_that_name_none(tmp_path: Path) -> None:
    tier = ClassifierTier(str(write(tmp_path / "words")))
    bare, own = declared(THRESHOLDS), declared("classifier: builtin:toxicity\n" + THRESHOLDS)
    tier.prepare(PolicySet({"bare": bare, "own": own}))
    (by_default,) = tier.screen([post("bad")], bare)
    (by_own,) = tier.screen([post("idiot")], own)
    assert isinstance(by_default, Settled)
    assert isinstance(by_own, Settled)
    assert (by_default.confidence_method, by_own.confidence_method) == (
        "classifier:words",
        "classifier:toxicity",
    )


def test_thresholds_without_any_classifier_are_refused() -> None:
    with pytest.raises(
        PolicyError, match=r"spam/policy.yaml: classifier: .*builtin:toxicity.*cascade.class"
    ):
        ClassifierTier().prepare(of(declared(THRESHOLDS)))


def test_a_policy_whose_tiers_leave_it_out_needs_none() -> None:
    policy = declared("tiers: [rules, safeguard]\n" + THRESHOLDS)
    tier = ClassifierTier()
    tier.prepare(of(policy))
    assert list(tier.screen([post("x")], policy)) == [Escalated("no_classifier")]


def test_an_unknown_builtin_is_refused() -> None:
    policy = declared("classifier: builtin:kindness\n" + THRESHOLDS)
    with pytest.raises(PolicyError, match="no 'builtin:kindness'; there are: builtin:toxicity"):
        ClassifierTier().prepare(of(policy))


def test_a_builtin_name_leads_nowhere_else() -> None:
    with pytest.raises(PolicyError, match=r"there is no 'builtin:\.\./models/toxicity'"):
        classifier_folder("builtin:../models/toxicity", Path())


def test_a_bad_default_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cascade.classifier: .*classifier.yaml: no such file"):
        ClassifierTier(str(tmp_path))


def test_a_bad_folder_is_refused_and_the_last_good_one_works(tmp_path: Path) -> None:
    write(tmp_path / "words")
    policy = declared("classifier: words\n" + THRESHOLDS, folder=tmp_path)
    tier = ClassifierTier()
    tier.prepare(of(policy))
    (tmp_path / "words" / "model.onnx").write_bytes(b"no model")
    with pytest.raises(PolicyError) as raised:
        tier.prepare(of(policy))
    assert str(raised.value).startswith(f"{tmp_path}/policy.yaml: classifier: {tmp_path}/words/")
    (outcome,) = tier.screen([post("bad")], policy)
    assert outcome.reason == "above:0.9"


def test_a_bad_default_on_reload_is_the_policy_error_that_keeps_the_last_good_set(
    tmp_path: Path,
) -> None:
    tier = ClassifierTier(str(write(tmp_path)))
    policy = declared(THRESHOLDS)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(PolicyError, match=r"cascade.classifier: .*tokenizer.json: no such file"):
        tier.prepare(of(policy))
    assert tier.screen([post("bad")], policy)[0].reason == "above:0.9"


def test_a_changed_model_is_loaded_and_an_unchanged_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    policy = declared(f"classifier: {tmp_path}\n" + THRESHOLDS)
    tier = ClassifierTier()
    tier.prepare(of(policy))
    loaded: list[Path] = []
    load = load_classifier

    def counted(folder: Path, *, threads: int) -> ClassifierModel:
        loaded.append(folder)
        return load(folder, threads=threads)

    monkeypatch.setattr("stream_guard.judging.tiers.classifier.tier.load_classifier", counted)
    tier.prepare(of(policy))
    assert loaded == []
    before = tier.screen([post("good")], policy)[0]
    write(tmp_path, by_table([0.5, 0.02, 0.99, 0.5, 0.0]))
    tier.prepare(of(policy))
    after = tier.screen([post("good")], policy)[0]
    assert loaded == [tmp_path]
    assert isinstance(before, Settled)
    assert isinstance(after, Settled)
    assert before.model != after.model
    assert after.confidence == pytest.approx(0.02)


def test_posts_in_flight_keep_the_classifier_of_the_set_before(tmp_path: Path) -> None:
    old = declared(f"classifier: {write(tmp_path / 'old')}\n" + THRESHOLDS)
    new = declared("classifier: builtin:toxicity\n" + THRESHOLDS)
    tier = ClassifierTier()
    tier.prepare(of(old))
    tier.prepare(of(new))
    shutil.rmtree(tmp_path / "old")
    assert tier.screen([post("bad")], old)[0].reason == "above:0.9"
    tier.prepare(of(new))
    assert list(tier.screen([post("bad")], old)) == [Escalated("no_classifier")]


def test_a_policy_that_was_never_prepared_works_too(tmp_path: Path) -> None:
    policy = declared(f"classifier: {write(tmp_path)}\n" + THRESHOLDS)
    assert ClassifierTier().screen([post("bad")], policy)[0].reason == "above:0.9"


# Kinds of model


def test_logits_become_probabilities(tmp_path: Path) -> None:
    sigmoid = load_classifier(
        write(tmp_path / "a", by_table([0, -8, 8, 0, -99]), activation="sigmoid")
    )
    assert [s.probability for s in sigmoid.score(["good", "bad", "?"])] == pytest.approx(
        [1 / (1 + math.exp(8)), 1 / (1 + math.exp(-8)), 0.5], abs=1e-6
    )
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["each"]),
        helper.make_node("ReduceMax", ["each"], ["out"], axes=[1], keepdims=0),
    ]
    table = np.array([[0, 0, 0], [0, -1000, -3], [1, 3, 2], *[[-2000] * 3] * 2], np.float32)
    logits = graph(nodes, IDS, {"out": (TensorProto.FLOAT, ["n", 3])}, {"table": table})
    softmax = load_classifier(write(tmp_path / "b", logits, activation="softmax", index=1))
    third = math.exp(3) / (math.exp(1) + math.exp(3) + math.exp(2))
    assert [s.probability for s in softmax.score(["good", "bad", "?"])] == pytest.approx(
        [0.0, third, 1 / 3], abs=1e-6
    )


def test_padding_is_masked(tmp_path: Path) -> None:
    """A model that adds up its ids' values under the mask gives the same in any company."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["each"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["each", "mask"], ["seen"]),
        helper.make_node("ReduceSum", ["seen", "axes"], ["out"], keepdims=0),
    ]
    model = graph(
        nodes,
        {**IDS, "attention_mask": (TensorProto.INT64, ["n", "s"])},
        {"out": (TensorProto.FLOAT, ["n"])},
        {"table": np.array([0.25, 0.1, 0.2, 0.0, 0.7], np.float32), "axes": np.array([1])},
    )
    classifier = load_classifier(write(tmp_path, model))
    scores = classifier.score(["good", "bad bad good", "what is", ""])
    assert [s.probability for s in scores] == pytest.approx([0.1, 0.5, 0.5, 0.0])


def test_a_control_token_in_a_post_is_text(tmp_path: Path) -> None:
    """The value of <s> is 0, and of what is unknown 0.5; a post cannot pass for the first."""
    tokenizer = words(*WORDS, brackets=True)
    model = by_table([*TABLE, 0.0])
    classifier = load_classifier(write(tmp_path, model, tokenizer, max_tokens=8))
    (hostile, plain) = classifier.score(["<s>", "good"])
    assert hostile.probability == 0.5
    assert plain.probability == pytest.approx(0.01)


def test_a_text_that_fails_spoils_no_other(tmp_path: Path) -> None:
    """The table has no row for the word 'three' alone, which no trial asks for."""
    nodes = [
        helper.make_node("Mod", ["input_ids", "four"], ["place"]),
        helper.make_node("Gather", ["table", "place"], ["each"]),
        helper.make_node("ReduceMax", ["each"], ["out"], axes=[1], keepdims=1),
    ]
    constants = {"table": np.array([0.5, 0.01, 0.99], np.float32), "four": np.array([4])}
    model = graph(nodes, IDS, ROWS, constants)
    classifier = load_classifier(write(tmp_path, model, words("?", "good", "bad", "three", "last")))
    scores = classifier.score(["good", "three", "bad"])
    assert [s.probability for s in scores] == [pytest.approx(0.01), None, pytest.approx(0.99)]


def test_a_text_that_cannot_be_encoded_spoils_no_other(tmp_path: Path) -> None:
    scores = load_classifier(write(tmp_path)).score(["good", "\ud800", "bad"])
    assert [s.probability for s in scores] == [pytest.approx(0.01), None, pytest.approx(0.99)]


def test_a_model_that_gives_no_number_gives_no_score(tmp_path: Path) -> None:
    model = by_table([0.5, 0.01, math.nan, 0.5, 0.0])
    scores = load_classifier(write(tmp_path, model)).score(["good", "bad"])
    assert [s.probability for s in scores] == [pytest.approx(0.01), None]


def test_long_posts_do_not_pad_short_ones(tmp_path: Path) -> None:
    classifier = load_classifier(write(tmp_path, max_tokens=32_768))
    widths: list[tuple[int, ...]] = []
    raw = classifier._raw

    def seen(feed: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        widths.append(feed["input_ids"].shape)
        return raw(feed)

    classifier._raw = seen  # type: ignore[method-assign]
    classifier.score(["good"] * 100 + ["good " * 20_000] * 3)
    assert widths == [(64, 1), (36, 1), (1, 20_000), (1, 20_000), (1, 20_000)]


@pytest.fixture(scope="module")
def pipeline() -> Callable[..., tuple[Any, bytes]]:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import StringTensorType
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    def made(*, lowercase: bool = False, zipmap: bool = False) -> tuple[Any, bytes]:
        texts = ["buy cheap pills now", "hello dear friend", "cheap watches here", "how are you"]
        fitted = make_pipeline(TfidfVectorizer(lowercase=lowercase), LogisticRegression())
        fitted.fit(texts * 5, [1, 0, 1, 0] * 5)
        exported = to_onnx(
            fitted,
            initial_types=[("text", StringTensorType([None, 1]))],
            options={id(fitted): {"zipmap": zipmap}},
            target_opset=17,
        )
        return fitted, exported.SerializeToString()

    return made


TEXT_INPUT: dict[str, Any] = {
    "input": "text",
    "max_tokens": None,
    "output": "probabilities",
    "index": 1,
}


def test_a_scikit_learn_pipeline_gives_its_own_probabilities(
    tmp_path: Path, pipeline: Callable[..., tuple[Any, bytes]]
) -> None:
    fitted, model = pipeline()
    classifier = load_classifier(write(tmp_path, model, None, **TEXT_INPUT))
    texts = ["cheap pills", "", "hello\0cheap pills", "dear, dear friend!", "ünknown"] * 30
    expected = fitted.predict_proba(texts)[:, 1]
    scores = classifier.score(texts)
    assert [s.probability for s in scores] == pytest.approx(expected.tolist(), abs=1e-5)


def test_lowercase_is_done_before_the_model(
    tmp_path: Path, pipeline: Callable[..., tuple[Any, bytes]]
) -> None:
    _, model = pipeline()
    classifier = load_classifier(write(tmp_path, model, None, **TEXT_INPUT, lowercase=True))
    loud, quiet = classifier.score(["CHEAP Pills", "cheap pills"])
    assert loud == quiet


# What is wrong with a folder


def test_a_pipeline_with_maps_is_told_of_zipmap(
    tmp_path: Path, pipeline: Callable[..., tuple[Any, bytes]]
) -> None:
    _, model = pipeline(zipmap=True)
    keys = TEXT_INPUT | {"output": "output_probability"}
    message = refused(write(tmp_path, model, None, **keys))
    assert message.startswith(".../classifier.yaml:6: output: ")
    assert "'zipmap': False" in message


def test_lower_casing_in_the_model_is_told_of_its_locale(tmp_path: Path) -> None:
    node = helper.make_node(
        "StringNormalizer", ["text"], ["out"], case_change_action="LOWER", locale="xx_XX.none"
    )
    strings = (TensorProto.STRING, ["n"])
    model = graph([node], {"text": strings}, {"out": strings})
    message = refused(write(tmp_path, model, None, input="text", max_tokens=None))
    assert message.startswith(".../model.onnx: ONNX Runtime ")
    assert "lowercase: true" in message


def test_a_folder_without_a_manifest(tmp_path: Path) -> None:
    assert "classifier.yaml: no such file; a classifier is a folder" in refused(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"sha256": "0" * 64},
            [":3: sha256: model.onnx has the sha256 ", "write this digest here"],
        ),
        ({"sha256": "0"}, [":3: sha256: ", "pattern"]),
        ({"model": "../model.onnx"}, ["model: "]),
        ({"model": "other.onnx"}, [".../other.onnx: no such file; ", "names it under model"]),
        ({"tokenizer": "t.json"}, [".../t.json: no such file; ", "says input: tokens"]),
        ({"max_tokens": None}, ["max_tokens is needed"]),
        ({"max_tokens": 0}, ["max_tokens: ", "greater than or equal to 1"]),
        ({"lowercase": True}, ["lowercase is for input: text"]),
        ({"input": "text"}, ["tokenizer and max_tokens are for input: tokens"]),
        (
            {"input": "text", "max_tokens": None},
            [":4: input: ", "input_ids tensor(int64)", "strings"],
        ),
        ({"input": "image"}, [":4: input: ", "'tokens' or 'text'"]),
        ({"output": "logits"}, ["output: name one of the outputs", "out tensor(float) ['n', 1]"]),
        ({"index": 1}, ["index: is 1, and out has 1 columns, counted from 0"]),
        ({"activation": "softmax"}, ["softmax needs several columns"]),
        ({"licence": None}, ["licence: ", "required"]),
        ({"colour": "red"}, ["colour: unknown key"]),
        ({"name": "Two Words"}, [":1: name: "]),
        ({"version": 1}, [":2: version: is 1 to YAML, not text; put it in quotes"]),
    ],
)
def test_a_manifest_that_is_wrong(tmp_path: Path, change: dict[str, Any], says: list[str]) -> None:
    message = refused(write(tmp_path, **change))
    assert message.startswith("...")
    for part in says:
        assert part in message


def test_a_missing_tokenizer(tmp_path: Path) -> None:
    message = refused(write(tmp_path, words_file=None))
    assert message.startswith(".../tokenizer.json: no such file; ")


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"version": "1.0"}', "\0"])
def test_a_tokenizer_that_is_none(tmp_path: Path, content: str) -> None:
    message = refused(write(tmp_path, words_file=content))
    assert ".../tokenizer.json: not a file of the tokenizers library" in message


def test_too_few_tokens_for_the_tokenizers_own(tmp_path: Path) -> None:
    tokenizer, model = words(*WORDS, brackets=True), by_table([*TABLE, 0.0])
    for limit in (1, 2):
        message = refused(write(tmp_path, model, tokenizer, max_tokens=limit))
        assert "max_tokens: must be over 2, which is what the tokenizer itself adds" in message
    (short, long) = load_classifier(write(tmp_path, model, tokenizer, max_tokens=3)).score(
        ["good", "good good"]
    )
    assert (short.truncated, long.truncated) == (False, True)


@pytest.mark.parametrize(
    "content", [b"", b"no model", b"\x00", b"\xff" * 40, b"PK\x03\x04 a zip", b"{}"]
)
def test_a_file_that_is_not_onnx(tmp_path: Path, content: bytes) -> None:
    message = refused(write(tmp_path, content))
    assert message.startswith(".../model.onnx: ")
    assert "export" in message


def test_a_model_cut_short(tmp_path: Path) -> None:
    whole = (SHIPPED / "model.onnx").read_bytes()
    for length in (1, 100, len(whole) // 2, len(whole) - 1):
        assert refused(write(tmp_path, whole[:length])).startswith(".../model.onnx: ")


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"tokens": (TensorProto.INT64, ["n", "s"])}, "tokens tensor(int64)"),
        ({"input_ids": (TensorProto.INT64, ["n"])}, "input_ids tensor(int64) ['n']"),
        ({"input_ids": (TensorProto.FLOAT, ["n", "s"])}, "input_ids tensor(float)"),
        ({**IDS, "pixels": (TensorProto.FLOAT, ["n"])}, "pixels tensor(float)"),
    ],
)
def test_inputs_that_tokens_do_not_fit(
    tmp_path: Path, inputs: dict[str, tuple[int, Sequence[Any]]], says: str
) -> None:
    first = next(iter(inputs))
    nodes = [helper.make_node("Cast", [first], ["out"], to=TensorProto.FLOAT)]
    shape = inputs[first][1]
    model = graph(nodes, inputs, {"out": (TensorProto.FLOAT, shape)})
    message = refused(write(tmp_path, model))
    assert message.startswith(".../classifier.yaml:4: input: input is tokens, and model.onnx takes")
    assert says in message


def test_an_output_that_is_no_row_for_each(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["input_ids"], ["f"], to=TensorProto.FLOAT),
             helper.make_node("ReduceMax", ["f"], ["out"], axes=[0, 1], keepdims=0)]  # fmt: skip
    message = refused(write(tmp_path, graph(nodes, IDS, {"out": (TensorProto.FLOAT, [])})))
    assert "output: out has the shape [] for 2 texts" in message


def test_an_output_of_several_columns_without_an_index(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["each"]),
             helper.make_node("ReduceMax", ["each"], ["out"], axes=[1], keepdims=0)]  # fmt: skip
    constants = {"table": np.full((5, 2), 0.5, np.float32)}
    model = graph(nodes, IDS, {"out": (TensorProto.FLOAT, ["n", 2])}, constants)
    assert "index is missing: out has 2 columns" in refused(write(tmp_path, model))


def test_an_output_of_whole_numbers(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["input_ids"], ["out"])]
    model = graph(nodes, IDS, {"out": (TensorProto.INT64, ["n", "s"])})
    assert "out is tensor(int64), not a tensor of floating-point" in refused(write(tmp_path, model))


def test_logits_that_are_called_probabilities(tmp_path: Path) -> None:
    message = refused(write(tmp_path, by_table([7.0, -3.0, 5.0, 7.0, 0.0])))
    assert "activation: out holds no probabilities; say softmax or sigmoid" in message


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    message = refused(write(tmp_path, by_table([0.5, 0.01]), words("?", "good", "bad")))
    assert "model.onnx: fails on the tokenizer's last id (2)" in message


def test_more_tokens_than_the_model_takes(tmp_path: Path) -> None:
    """The model adds a position to each id, and knows eight positions."""
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("Slice", ["shape", "one", "two"], ["length"]),
        helper.make_node("Squeeze", ["length"], ["count"]),
        helper.make_node("Range", ["zero", "count", "step"], ["places"]),
        helper.make_node("Gather", ["positions", "places"], ["of_places"]),
        helper.make_node("Gather", ["table", "input_ids"], ["each"]),
        helper.make_node("Add", ["each", "of_places"], ["both"]),
        helper.make_node("ReduceMax", ["both"], ["out"], axes=[1], keepdims=1),
    ]
    constants = {
        "one": np.array([1]), "two": np.array([2]), "zero": np.array(0), "step": np.array(1),
        "positions": np.zeros(8, np.float32), "table": np.array(TABLE, np.float32),
    }  # fmt: skip
    model = graph(nodes, IDS, ROWS, constants)
    assert load_classifier(write(tmp_path, model, max_tokens=8)).name == "words"
    message = refused(write(tmp_path, model, max_tokens=9))
    assert "model.onnx: fails on 9 tokens (max_tokens)" in message


# What reaches out of the file


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    model = onnx.load_from_string(by_table(TABLE))
    path = tmp_path / "words" / "model.onnx"
    path.parent.mkdir()
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    message = refused(write(path.parent, path.read_bytes()))
    assert ".../model.onnx: keeps weights in other files" in message


def test_weights_in_another_file_are_found_in_an_attribute_too() -> None:
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), "c")
    onnx.external_data_helper.set_external_data(tensor, "/etc/passwd")
    node = helper.make_node("Constant", [], ["out"], value=tensor)
    inner = helper.make_graph([node], "inner", [], [])
    outer = helper.make_node("If", ["x"], ["out"], then_branch=inner, else_branch=inner)
    with pytest.raises(OnnxFault, match="external data"):
        check_onnx(graph([outer], {"x": (TensorProto.BOOL, [])}, ROWS))


def test_operators_of_a_library_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("PyCall", ["input_ids"], ["out"], domain="ai.onnx.contrib")
    message = refused(write(tmp_path, graph([node], IDS, ROWS, domains=["ai.onnx.contrib"])))
    assert ".../model.onnx: uses operators of the domain 'ai.onnx.contrib'" in message


def test_functions_that_the_model_spells_out_are_taken() -> None:
    cast = helper.make_node("Cast", ["a"], ["b"], to=TensorProto.FLOAT)
    function = helper.make_function(
        "mine", "ToFloat", ["a"], ["b"], [cast], [helper.make_opsetid("", 17)]
    )
    call = helper.make_node("ToFloat", ["input_ids"], ["out"], domain="mine")
    model = onnx.load_from_string(graph([call], IDS, ROWS, domains=["mine"]))
    model.functions.append(function)
    check_onnx(model.SerializeToString())


def test_a_message_nested_without_end_is_refused() -> None:
    def wrapped(field: int, content: bytes) -> bytes:
        length, size = b"", len(content)
        while size >= 0x80:
            length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
        return bytes([field << 3 | 2]) + length + bytes([size]) + content

    content = b""
    for _ in range(3_000):  # a graph in an attribute in a node in a graph
        content = wrapped(1, wrapped(5, wrapped(6, content)))
    with pytest.raises(OnnxFault, match="not an ONNX model"):
        check_onnx(wrapped(7, content))


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_are_checked_without_a_crash(content: bytes) -> None:
    try:
        check_onnx(content)
    except OnnxFault as fault:
        assert str(fault)  # noqa: PT017 - either is fine, another exception is not


# The page about it


def test_the_examples_of_the_documentation_are_valid() -> None:
    page = (
        (ROOT / "docs" / "guides" / "classifier.md")
        .read_text("utf-8")
        .replace("4f1c...", "4f1c" * 16)
    )
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    manifests = [block for block in blocks if block.startswith("# classifier.yaml")]
    assert len(manifests) == 2
    for block in manifests:
        read_yaml(block.encode(), "classifier.yaml").check(ClassifierManifest)
    policies = [block for block in blocks if block not in manifests]
    assert len(policies) == 2
    for block in policies:
        read_yaml(block.encode(), "policy.yaml").check(PolicyMeta)


def test_the_documented_manifest_shows_every_key_of_a_token_model() -> None:
    page = (ROOT / "docs" / "guides" / "classifier.md").read_text("utf-8")
    (block,) = re.findall(r"```yaml\n(# classifier.yaml\nname: my-model.*?)```", page, re.DOTALL)
    shown = set(re.findall(r"^(\w+):", block, re.MULTILINE))
    assert shown == set(ClassifierManifest.model_fields) - {"lowercase"}
