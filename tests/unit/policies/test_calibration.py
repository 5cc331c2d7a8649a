"""A calibration is for what it was fitted on, keeps the order of confidences, and is refused where it is none."""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner, Result

from stream_guard.cli.main import app
from stream_guard.core.errors import LimitError, PolicyError, SettingsError
from stream_guard.core.exit_codes import ExitCode
from stream_guard.judging.contract import Answer, Judgement, JudgeRequest, Provenance
from stream_guard.judging.verdict import build_verdict
from stream_guard.offline.calibrate.data import JudgedBy, join_labels, read_labels
from stream_guard.offline.calibrate.fit import (
    KIND_MIN,
    LABELLED_MIN,
    FitError,
    Labelled,
    brier_score,
    fit_curve,
    fit_isotonic,
    fit_platt,
    held_out_scores,
)
from stream_guard.policies.calibration import (
    CALIBRATION_BYTES_MAX,
    POINTS_MAX,
    IsotonicCalibration,
    PlattCalibration,
    calibrate,
    logit,
    read_calibration,
)
from stream_guard.policies.describe import show_lines
from stream_guard.policies.lint import lint_policy
from stream_guard.policies.policy import Policy, make_policy
from stream_guard.policies.reload import PolicyReloader, _signature
from stream_guard.policies.store import build_policies, load_policies, read_policy_files
from stream_guard.records.post import Post
from tests.verdicts import FakeRecord

if TYPE_CHECKING:
    from stream_guard.policies.calibration import Calibration
    from stream_guard.policies.policy import PolicySet
    from stream_guard.policies.reload import ReloadOutcome

TEXT = b"# Spam\n\n## Safe (S0 - clean)\n\n## Banned (S1 - adverts)\n\nAnswer `BAD` or `GOOD`.\n"
SHA256 = make_policy("spam", TEXT).sha256
METHOD = "token_probability"
FITTED: dict[str, Any] = {
    "policy_sha256": SHA256,
    "model": "m",
    "revision": "r",
    "confidence_method": METHOD,
    "fitted_on": 100,
}
PLATT = FITTED | {"method": "platt", "a": 0.5, "b": -1.0}
ISOTONIC = FITTED | {"method": "isotonic", "points": [[0.2, 0.1], [0.6, 0.3], [0.9, 0.3]]}


def with_curve(curve: dict[str, Any], text: bytes = TEXT) -> Policy:
    return make_policy("spam", text, calibration=json.dumps(curve).encode())


def read(value: object, text: str | None = None) -> Calibration:
    content = json.dumps(value, indent=1) if text is None else text
    return read_calibration(content.encode(), "spam/calibration.json")


# The machine that runs this may be busy: what is slow is no failure.
patient = settings(deadline=None)
probabilities = st.floats(0.0, 1.0)


@st.composite
def curves(draw: st.DrawFn) -> Calibration:
    """Any curve that a file may hold."""
    if draw(st.booleans()):
        a, b = draw(st.floats(0, 100)), draw(st.floats(-100, 100))
        return PlattCalibration(**FITTED, method="platt", a=a, b=b)
    xs = sorted(draw(st.sets(probabilities, min_size=1, max_size=20)))
    ys = sorted(draw(st.lists(probabilities, min_size=len(xs), max_size=len(xs))))
    points = tuple(zip(xs, ys, strict=True))
    return IsotonicCalibration(**FITTED, method="isotonic", points=points)


# Applying it


@patient
@given(curves(), probabilities, probabilities)
def test_a_curve_keeps_the_order_and_stays_a_probability(
    curve: Calibration, one: float, other: float
) -> None:
    low, high = curve.apply(min(one, other)), curve.apply(max(one, other))
    assert 0.0 <= low <= high <= 1.0


@patient
@given(curves())
def test_a_curve_survives_its_file(curve: Calibration) -> None:
    assert read(curve.model_dump(mode="json")) == curve


@patient
@given(st.floats(1e-6, 1 - 1e-6))
def test_platt_with_one_and_nought_changes_nothing(confidence: float) -> None:
    curve = PlattCalibration(**FITTED, method="platt", a=1, b=0)
    assert curve.apply(confidence) == pytest.approx(confidence, rel=1e-9)


@pytest.mark.parametrize(
    ("confidence", "worth"),
    [(0.0, 0.1), (0.2, 0.1), (0.4, 0.2), (0.6, 0.3), (0.7, 0.3), (0.9, 0.3), (1.0, 0.3)],
)
def test_isotonic_is_straight_between_points_and_level_beyond(
    confidence: float, worth: float
) -> None:
    assert read(ISOTONIC).apply(confidence) == pytest.approx(worth)


@patient
@given(probabilities)
def test_log_odds_are_finite_and_odd(p: float) -> None:
    assert math.isfinite(logit(p))
    assert logit(p) == pytest.approx(-logit(1 - p), abs=1e-6)


def calibrated(
    policy: Policy,
    confidence: float | None,
    method: str | None = METHOD,
    model: str = "m",
    revision: str | None = "r",
) -> tuple[float | None, str | None]:
    return calibrate(
        confidence,
        method,
        policy.calibration,
        policy_sha256=policy.sha256,
        model=model,
        revision=revision,
    )


def test_it_is_applied_to_what_it_was_fitted_on_and_says_so() -> None:
    value, method = calibrated(with_curve(PLATT), 0.5)
    assert value == pytest.approx(1 / (1 + math.exp(1)))
    assert method == f"{METHOD}+platt"
    value, method = calibrated(with_curve(ISOTONIC), 0.4)
    assert (value, method) == (pytest.approx(0.2), f"{METHOD}+isotonic")


@pytest.mark.parametrize(
    ("curve", "asked"),
    [
        (PLATT | {"policy_sha256": "0" * 64}, {}),
        (PLATT, {"model": "another"}),
        (PLATT, {"revision": None}),
        (PLATT, {"revision": "another"}),
        (PLATT, {"method": "classifier:toxicity"}),
        (PLATT, {"method": None}),
        (PLATT, {"confidence": None}),
        (None, {}),
    ],
)
def test_it_is_applied_to_nothing_else(curve: dict[str, Any] | None, asked: dict[str, Any]) -> None:
    policy = make_policy("spam", TEXT) if curve is None else with_curve(curve)
    given_ = {"confidence": 0.5, "method": METHOD, "model": "m", "revision": "r"} | asked
    result = calibrated(policy, **given_)
    assert result == (given_["confidence"], given_["method"])


def verdict(policy: Policy, confidence: float | None = 0.5, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    post = Post(changes.pop("id", "p1"), "t", "0" * 64, 1)
    keys = {"tier": "safeguard", "model": "m", "revision": "r"} | changes
    judgement = Judgement(
        JudgeRequest("1", post, policy),
        answer=Answer("violates"),
        provenance=Provenance(**keys),
        confidence=confidence,
        confidence_method=None if confidence is None else METHOD,
    )
    return build_verdict(FakeRecord(), judgement, consumed_ms=1, published_ms=2)


def test_a_verdict_has_the_calibrated_and_the_raw_value() -> None:
    assert verdict(with_curve(PLATT))["confidence"] == {
        "value": pytest.approx(1 / (1 + math.exp(1))),
        "method": f"{METHOD}+platt",
        "raw": 0.5,
    }


def test_a_verdict_without_a_curve_has_the_raw_value_twice() -> None:
    expected = {"value": 0.5, "method": METHOD, "raw": 0.5}
    assert verdict(make_policy("spam", TEXT))["confidence"] == expected


def test_a_verdict_without_a_confidence_has_none() -> None:
    expected = {"value": None, "method": None, "raw": None}
    assert verdict(with_curve(PLATT), None)["confidence"] == expected


# Where it comes from


def test_it_changes_no_version_and_is_read_from_the_folder(tmp_path: Path) -> None:
    (tmp_path / "spam").mkdir()
    (tmp_path / "spam" / "policy.md").write_bytes(TEXT)
    before = load_policies(tmp_path)
    (tmp_path / "spam" / "calibration.json").write_text(json.dumps(PLATT))
    after = load_policies(tmp_path)
    assert before.policies["spam"].calibration is None
    assert after.policies["spam"].calibration == read(PLATT)
    assert after.policies["spam"].sha256 == before.policies["spam"].sha256
    assert after.sha256 != before.sha256


async def test_an_edit_of_it_alone_goes_live_and_a_bad_one_does_not(tmp_path: Path) -> None:
    file = tmp_path / "spam" / "calibration.json"
    file.parent.mkdir()
    (tmp_path / "spam" / "policy.md").write_bytes(TEXT)
    live: list[PolicySet] = []
    told: list[ReloadOutcome] = []

    async def prepare(_: PolicySet) -> None:
        pass

    reloader = PolicyReloader(
        tmp_path, load_policies(tmp_path), prepare=prepare, switch=live.append, report=told.append
    )
    file.write_text(json.dumps(PLATT))
    await reloader.check()
    file.write_text(json.dumps(PLATT | {"a": -1}))
    await reloader.check()
    assert [(outcome.kind, outcome.changed) for outcome in told] == [
        ("switched", ("spam",)),
        ("refused", ()),
    ]
    assert live[-1].policies["spam"].calibration == read(PLATT)
    assert f"{file}:1: a: " in told[-1].message


def test_the_watch_over_the_folder_sees_it(tmp_path: Path) -> None:
    (tmp_path / "spam").mkdir()
    before = _signature(tmp_path)
    (tmp_path / "spam" / "calibration.json").write_text("{}")
    names = {name for name, *_ in _signature(tmp_path)} - {name for name, *_ in before}
    assert names == {str(tmp_path / "spam" / "calibration.json")}


def test_one_for_another_version_is_told_by_lint_and_shown_as_unused() -> None:
    used, unused = with_curve(PLATT), with_curve(PLATT | {"policy_sha256": "0" * 64})
    assert "SG401" not in {finding.code for finding in lint_policy(used)}
    (finding,) = (f for f in lint_policy(unused) if f.code == "SG401")
    assert finding.file == "spam/calibration.json"
    assert "is for version 000000000000, this is version " + SHA256[:12] in finding.message
    assert any("'used': True" in line for line in show_lines(used))
    assert any("'used': False" in line for line in show_lines(unused))


def test_lint_tells_of_a_threshold_that_settles_nothing() -> None:
    text = (
        b"# Spam\n\n## Banned (S1 - adverts)\n\n## Banned (S2 - scams)\n\nAnswer `BAD` or `GOOD`.\n"
    )

    def codes(yaml: str) -> set[str]:
        return {f.code for f in lint_policy(make_policy("spam", text, metadata=yaml.encode()))}

    assert "SG402" in codes("thresholds: {violates_above: 0.9}")
    assert "SG402" not in codes("thresholds: {violates_above: 0.9, category: S2}")
    assert "SG402" not in codes("thresholds: {safe_below: 0.1}")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"a": -0.1}, ":8: a: Input should be greater than or equal to 0"),
        ({"a": "1"}, ":8: a: Input should be a valid number"),
        ({"a": "one"}, ":8: a: "),
        ({"b": 101}, ":9: b: "),
        ({"method": "beta"}, ":7: method: must be 'platt' or 'isotonic'"),
        ({"method": "isotonic"}, "points: Field required"),
        ({"policy_sha256": "abc"}, ":2: policy_sha256: "),
        ({"fitted_on": 0}, ":6: fitted_on: "),
        ({"colour": 1}, ":10: colour: unknown key"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_line(change: dict[str, Any], says: str) -> None:
    with pytest.raises(PolicyError) as raised:
        read(PLATT | change)
    assert str(raised.value).startswith("spam/calibration.json:")
    assert says in str(raised.value)


@pytest.mark.parametrize(
    "points",
    [
        [],
        [[0.5, 0.5], [0.5, 0.6]],
        [[0.5, 0.5], [0.4, 0.6]],
        [[0.1, 0.5], [0.4, 0.4]],
        [[0.1, 1.1]],
        [[-0.1, 0.1]],
        [[0.1]],
        [[x / 2_000, 0.5] for x in range(POINTS_MAX + 1)],
    ],
)
def test_points_that_fall_or_leave_the_scale_are_refused(points: list[list[float]]) -> None:
    with pytest.raises(PolicyError, match=r"calibration.json:8: points"):
        read(ISOTONIC | {"points": points})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ":1: not JSON"),
        ("{\n", ":2: not JSON"),
        ('{\n"a": 1,\n}', ":3: not JSON"),
        ("[" * 100_000, ":1: not usable JSON"),
        ('{"a": NaN}', ":1: not usable JSON (NaN is not a number)"),
        ('{"a": 1, "a": 2}', ":1: not usable JSON (duplicate key 'a'; keep one)"),
        ("[]", ":1: must be an object"),
        ("null", ":1: must be an object"),
        ("{}", ":1: method: must be 'platt' or 'isotonic'"),
        (" " * (CALIBRATION_BYTES_MAX + 1), "over 262,144 bytes"),
    ],
)
def test_what_is_no_calibration_is_refused(text: str, says: str) -> None:
    with pytest.raises(PolicyError) as raised:
        read(None, text)
    assert says in str(raised.value)


def test_a_file_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"spam/calibration.json:2: not UTF-8"):
        read_calibration(b"{\n\xff}", "spam/calibration.json")


def test_a_bad_one_keeps_the_set_from_being_built(tmp_path: Path) -> None:
    (tmp_path / "spam").mkdir()
    (tmp_path / "spam" / "policy.md").write_bytes(TEXT)
    (tmp_path / "spam" / "calibration.json").write_text("{}")
    with pytest.raises(PolicyError, match=f"{tmp_path}/spam/calibration.json:1: method"):
        build_policies(read_policy_files(tmp_path))


# Fitting it


def drawn(count: int, *, a: float = 0.5, b: float = -1.0, seed: int = 3) -> list[Labelled]:
    """Return posts that violate as often as a curve says."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    posts = []
    for number in range(count):
        confidence = rng.random()
        chance = 1 / (1 + math.exp(-(a * logit(confidence) + b)))
        posts.append(Labelled(f"p{number}", confidence, rng.random() < chance))
    return posts


def test_platt_finds_the_curve_that_the_labels_were_drawn_from() -> None:
    a, b = fit_platt(drawn(20_000))
    assert (a, b) == (pytest.approx(0.5, abs=0.05), pytest.approx(-1.0, abs=0.05))


def test_platt_is_the_most_likely_curve() -> None:
    """scikit-learn's logistic regression without a penalty; the smoothed targets weigh little in 2,000 posts."""
    posts = drawn(2_000)
    x = np.array([[logit(post.confidence)] for post in posts])
    model = LogisticRegression(C=np.inf).fit(x, [post.violates for post in posts])
    a, b = fit_platt(posts)
    assert a == pytest.approx(float(model.coef_[0, 0]), abs=0.01)
    assert b == pytest.approx(float(model.intercept_[0]), abs=0.01)


def test_platt_stays_finite_where_the_labels_are_separate() -> None:
    posts = [Labelled(f"p{n}", n / 100, n >= 50) for n in range(100)]
    a, b = fit_platt(posts)
    curve = PlattCalibration(**FITTED, method="platt", a=a, b=b)
    assert curve.apply(0.3) < 0.1
    assert curve.apply(0.7) > 0.9


labelled = st.lists(st.tuples(probabilities, st.booleans()), min_size=LABELLED_MIN, max_size=60)


@patient
@given(labelled)
def test_any_posts_make_a_curve_or_are_refused(pairs: list[tuple[float, bool]]) -> None:
    posts = [
        Labelled(f"p{n}", confidence, violates) for n, (confidence, violates) in enumerate(pairs)
    ]
    identity = {k: FITTED[k] for k in ("policy_sha256", "model", "revision", "confidence_method")}
    for method in ("platt", "isotonic"):
        try:
            curve = fit_curve(posts, method, **identity)  # type: ignore[arg-type]
        except FitError:
            continue
        assert read(curve.model_dump(mode="json")) == curve


@patient
@given(labelled)
def test_isotonic_is_the_largest_of_smallest_means(pairs: list[tuple[float, bool]]) -> None:
    """The closed form of isotonic regression (Barlow et al. 1972), at each confidence that occurs."""
    violating = sum(violates for _, violates in pairs)
    if min(violating, len(pairs) - violating) < KIND_MIN:
        return
    posts = [Labelled(f"p{n}", round(c, 6), v) for n, (c, v) in enumerate(pairs)]
    curve = IsotonicCalibration(**FITTED, method="isotonic", points=tuple(fit_isotonic(posts)))
    xs = sorted({post.confidence for post in posts})

    def mean(low: float, high: float) -> float:
        return float(np.mean([p.violates for p in posts if low <= p.confidence <= high]))

    for x in xs:
        expected = max(min(mean(low, high) for high in xs if high >= x) for low in xs if low <= x)
        assert curve.apply(x) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("fit", [fit_platt, fit_isotonic])
@pytest.mark.parametrize(
    "posts",
    [
        [],
        [Labelled(f"p{n}", n / 19, n > 9) for n in range(LABELLED_MIN - 1)],
        [Labelled(f"p{n}", n / 40, violates=True) for n in range(40)],
        [Labelled(f"p{n}", n / 40, violates=False) for n in range(40)],
        [Labelled(f"p{n}", n / 40, n >= 41 - KIND_MIN) for n in range(40)],
    ],
)
def test_too_few_posts_or_all_of_one_kind_are_refused(fit: Any, posts: list[Labelled]) -> None:  # noqa: ANN401
    violating = sum(post.violates for post in posts)
    counts = (
        f"{violating} violating and {len(posts) - violating} safe; a curve needs 20, of which 5"
    )
    with pytest.raises(FitError, match=counts):
        fit(posts)


@pytest.mark.parametrize("seed", range(20))
def test_the_fewest_posts_make_a_curve_and_its_check(seed: int) -> None:
    """The minimum counts the user's posts, and not what folds leave of them."""
    posts = [
        Labelled(f"{seed}-{n}", (n + 1) / 22, n >= LABELLED_MIN - KIND_MIN)
        for n in range(LABELLED_MIN)
    ]
    a, _ = fit_platt(posts)
    assert a > 0
    for method in ("platt", "isotonic"):
        assert held_out_scores(posts, method).calibrated < 0.3  # type: ignore[arg-type]


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "stream_guard.offline.calibrate.libraries", raising=False)
    monkeypatch.setitem(sys.modules, "sklearn.isotonic", None)
    with pytest.raises(SettingsError, match=r"pip install 'stream-guard\[evaluation\]'"):
        fit_platt(drawn(40))


def test_a_confidence_that_falls_is_refused() -> None:
    with pytest.raises(FitError, match="does not rise as posts violate more"):
        fit_platt([Labelled(f"p{n}", 1 - n / 40, n > 20) for n in range(40)])


def test_too_many_points_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stairs = [Labelled(f"{x}-{n}", x / 20, n < x) for x in range(1, 20) for n in range(20)]
    monkeypatch.setattr("stream_guard.offline.calibrate.fit.POINTS_MAX", 19)
    assert len(fit_isotonic(stairs)) == 19
    monkeypatch.setattr("stream_guard.offline.calibrate.fit.POINTS_MAX", 18)
    with pytest.raises(FitError, match="19 points, over 18; use platt"):
        fit_isotonic(stairs)


def test_the_brier_score_is_the_mean_square() -> None:
    assert brier_score([(1.0, True), (0.5, False), (0.0, True)]) == pytest.approx(1.25 / 3)


def test_a_curve_is_judged_by_posts_that_it_had_not_seen() -> None:
    scores = held_out_scores(drawn(2_000), "platt")
    assert scores.calibrated < scores.raw - 0.02
    # Where the confidence says nothing, isotonic fits the noise of its own posts, which held-out ones show.
    noise = random.Random(5)  # noqa: S311 - no secret
    posts = [Labelled(f"p{n}", n / 200, noise.random() < 0.5) for n in range(200)]
    curve = IsotonicCalibration(**FITTED, method="isotonic", points=tuple(fit_isotonic(posts)))
    seen = brier_score([(curve.apply(post.confidence), post.violates) for post in posts])
    assert held_out_scores(posts, "isotonic").calibrated > seen + 0.005


def test_held_out_scores_do_not_depend_on_the_order() -> None:
    posts = drawn(300)
    shuffled = random.Random(1).sample(posts, len(posts))  # noqa: S311 - no secret
    assert held_out_scores(posts, "platt").calibrated == pytest.approx(
        held_out_scores(shuffled, "platt").calibrated
    )


# What it is fitted on


def lines(verdicts: list[dict[str, Any]]) -> bytes:
    return b"\n".join(orjson.dumps(each) for each in verdicts) + b"\n\n"


def test_labels_are_the_policys_words_or_plain_ones() -> None:
    rows = "id,label,who\na,BAD,x\nb,good,y\nc,S1,z\nd,s0,z\ne,1,z\nf,violates,z\na,bad,x\n"
    assert read_labels(rows.encode(), make_policy("spam", TEXT), "l.csv") == {
        "a": True, "b": False, "c": True, "d": False, "e": True, "f": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("", "l.csv:1: the columns id and label are required; found: none"),
        ("id,verdict\n", "the columns id and label are required; found: id, verdict"),
        ("id,label\na,maybe\n", "l.csv:2: unknown label 'maybe'; use one of: 0, 1, bad, "),
        ("id,label\na,1\na,0\n", "l.csv:3: 'a' has two different labels"),
        ("id,label\na\n", "l.csv:2: unknown label ''; use one of"),
    ],
)
def test_labels_that_are_none(rows: str, says: str) -> None:
    with pytest.raises(FitError) as raised:
        read_labels(rows.encode(), make_policy("spam", TEXT), "l.csv")
    assert says in str(raised.value)


def test_verdicts_are_joined_once_each_and_what_does_not_belong_is_counted() -> None:
    policy = make_policy("spam", TEXT)
    settled = verdict(policy, id="c")
    settled["confidence"]["method"] = "classifier:toxicity"
    verdicts = [
        verdict(policy, 0.9, id="a"),
        verdict(policy, 0.8, id="a"),
        verdict(policy, 0.1, id="b"),
        verdict(policy, None, id="b"),
        verdict(policy, id="unlabelled"),
        verdict(make_policy("spam", TEXT + b"!"), id="a"),
        settled,
    ]
    joined = join_labels(lines(verdicts), {"a": True, "b": False, "c": True}, policy, "v.jsonl")
    assert joined.posts == (Labelled("a", 0.9, violates=True), Labelled("b", 0.1, violates=False))
    assert joined.judged_by == JudgedBy("m", "r", METHOD)
    assert joined.ignored == {
        "of another policy or version": 1,
        "without a confidence": 1,
        "decided by the classifier": 1,
        "without a label": 1,
        "of a post that was counted already": 1,
    }


def test_calibrated_verdicts_are_fitted_by_their_raw_values() -> None:
    joined = join_labels(
        lines([verdict(with_curve(PLATT), 0.9)]), {"p1": True}, with_curve(PLATT), "v"
    )
    assert joined.posts[0].confidence == 0.9
    assert joined.judged_by.method == METHOD


def test_verdicts_of_two_models_are_refused() -> None:
    policy = make_policy("spam", TEXT)
    two = lines([verdict(policy, id="a"), verdict(policy, id="b", model="n")])
    with pytest.raises(
        FitError, match=r"several models or methods \(m at r by .*; n at r by .*\); keep"
    ):
        join_labels(two, {"a": True, "b": False}, policy, "v")


def test_no_verdict_left_says_what_was_ignored() -> None:
    policy = make_policy("spam", TEXT)
    with pytest.raises(FitError, match=r"no verdict of spam .*ignored: 1 without a label"):
        join_labels(lines([verdict(policy)]), {}, policy, "v")


@pytest.mark.parametrize("line", [b"no", b"[]", b"{}", b"null", b'{"policy": 1}'])
def test_a_line_that_is_no_verdict_is_named(line: bytes) -> None:
    policy = make_policy("spam", TEXT)
    with pytest.raises(FitError, match="v:2: not a verdict"):
        join_labels(lines([verdict(policy)])[:-1] + line, {"p1": True}, policy, "v")


# The command


def run(folder: Path, *arguments: str) -> Result:
    command = ["policies", "calibrate", "spam", *arguments, "--path", str(folder)]
    return CliRunner().invoke(app, command)


@pytest.fixture
def judged(tmp_path: Path) -> tuple[Path, str, str]:
    """Return a folder of policies, and files of verdicts and labels of 400 posts."""
    folder = tmp_path / "policies"
    (folder / "spam").mkdir(parents=True)
    (folder / "spam" / "policy.md").write_bytes(TEXT)
    policy = load_policies(folder).policies["spam"]
    posts = drawn(400)
    verdicts, labels = tmp_path / "verdicts.jsonl", tmp_path / "labels.csv"
    verdicts.write_bytes(lines([verdict(policy, p.confidence, id=p.id) for p in posts]))
    rows = "".join(f"{p.id},{'BAD' if p.violates else 'GOOD'}\n" for p in posts)
    labels.write_text("id,label\n" + rows)
    return folder, str(verdicts), str(labels)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_what_the_command_writes_is_used_by_the_next_verdict(
    judged: tuple[Path, str, str], method: str
) -> None:
    folder, verdicts, labels = judged
    result = run(folder, verdicts, labels, "--method", method, "--write")
    assert result.exit_code == ExitCode.CLEAN
    assert "400 posts; mean squared error on held-out posts" in result.stderr
    policy = load_policies(folder).policies["spam"]
    assert policy.calibration is not None
    assert policy.calibration.fitted_on == 400
    confidence = verdict(policy, 0.9)["confidence"]
    assert confidence["method"] == f"{METHOD}+{method}"
    assert (
        confidence["value"] < 0.75
    )  # of posts at 0.9, the labels were drawn with a chance of 0.52


def test_without_write_it_is_printed(judged: tuple[Path, str, str]) -> None:
    folder, verdicts, labels = judged
    result = run(folder, verdicts, labels)
    assert json.loads(result.stdout)["policy_sha256"] == SHA256
    assert not (folder / "spam" / "calibration.json").exists()


def test_a_curve_that_is_worse_than_none_is_written_by_force_alone(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    (folder / "spam").mkdir(parents=True)
    (folder / "spam" / "policy.md").write_bytes(TEXT)
    policy = load_policies(folder).policies["spam"]
    # Confidences that are right already: a curve on twenty of them can only blur.
    posts = [Labelled(f"p{n}", 0.999 if n % 2 else 0.001, n % 2 == 1) for n in range(20)]
    verdicts, labels = tmp_path / "verdicts.jsonl", tmp_path / "labels.csv"
    verdicts.write_bytes(lines([verdict(policy, p.confidence, id=p.id) for p in posts]))
    labels.write_text("id,label\n" + "".join(f"{p.id},{int(p.violates)}\n" for p in posts))
    result = run(folder, str(verdicts), str(labels), "--write")
    assert isinstance(result.exception, LimitError)
    assert "the curve is worse than none, and is not written: " in str(result.exception)
    assert not (folder / "spam" / "calibration.json").exists()
    assert run(folder, str(verdicts), str(labels)).exit_code == ExitCode.CLEAN
    assert run(folder, str(verdicts), str(labels), "--write", "--force").exit_code == ExitCode.CLEAN
    assert (folder / "spam" / "calibration.json").exists()


def test_what_cannot_be_fitted_is_refused(judged: tuple[Path, str, str]) -> None:
    folder, verdicts, labels = judged
    Path(labels).write_text("id,label\np1,1\np2,0\n")
    result = run(folder, verdicts, labels, "--write")
    assert isinstance(result.exception, PolicyError)
    assert "2 labelled posts with a confidence" in str(result.exception)
    assert not (folder / "spam" / "calibration.json").exists()


def test_classify_prints_scores_and_no_text(tmp_path: Path) -> None:
    file = tmp_path / "posts.jsonl"
    file.write_text(
        '{"id": "a", "text": "you stupid idiot"}\n{"id": "b"}\n{"id": "c", "text": "hello"}\n'
    )
    result = CliRunner().invoke(app, ["policies", "score", "builtin:toxicity", str(file)])
    assert result.exit_code == ExitCode.CLEAN
    told = result.stdout.splitlines()
    assert told[0].startswith("toxicity@")
    assert told[1] == "line 1: a: 1.0000"
    assert told[2].startswith("line 2: would be a dead letter: ")
    assert told[3].startswith("line 3: c: 0.")
    assert "idiot" not in result.stdout


def test_classify_refuses_what_is_no_classifier(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["policies", "score", str(tmp_path)])
    assert isinstance(result.exception, PolicyError)
