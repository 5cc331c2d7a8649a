"""``stream-guard eval`` and ``classify`` by the real engine; the page in a real browser."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from sklearn import metrics

from stream_guard.cli.demo import MODEL
from tests.browser import open_page
from tests.integration.harness import ROOT
from tests.integration.in_process import judging_command

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SETS = ROOT / "tests" / "data" / "golden"
SLUGS = ("dangerous-content", "age-restricted-goods-and-services")
ROWS = {"dangerous-content": 41, "age-restricted-goods-and-services": 34}


# vLLM and torch warn of themselves while they are imported.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
SETTINGS = {
    "STREAM_GUARD_ENGINE__REASONING_TOKENS_MAX": "48",
    "STREAM_GUARD_ENGINE__RATIONALE_TOKENS_MAX": "32",
    "STREAM_GUARD_CASCADE__LADDER": "[]",
    "STREAM_GUARD_ENGINE__REQUEST_TIMEOUT_S": "600",  # however slow the machine
}


@dataclass(frozen=True)
class Evaluated:
    """What one run wrote."""

    slug: str
    folder: Path
    report: Any
    lines: Sequence[Any]


@pytest.fixture(scope="module", params=SLUGS)
def evaluated(
    request: pytest.FixtureRequest,
    engine_server: None,  # noqa: ARG001 - kept for the engine
    tmp_path_factory: pytest.TempPathFactory,
) -> Evaluated:
    slug: str = request.param
    folder = tmp_path_factory.mktemp("eval")
    # One of the two compares: the same policy, with more effort.
    more = ("--against", "high", "--max-flips", "100%") if slug == SLUGS[1] else ()
    command = ("eval", "--policy", slug, str(SETS / f"{slug}.csv"), "--out", str(folder), *more)
    done = judging_command(MODEL, *command, "--path", str(ROOT / "policies"), "--json", **SETTINGS)
    assert done.exit_code == 0, done.stderr[-3_000:]
    report = json.loads(done.stdout)
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    return Evaluated(slug, folder, report, lines)


def test_every_row_of_the_published_set_went_through_the_model(evaluated: Evaluated) -> None:
    assert len(evaluated.lines) == evaluated.report["figures"]["rows"] == ROWS[evaluated.slug]
    for line in evaluated.lines:
        assert line["provenance"]["tier"] == "safeguard"
        assert line["provenance"]["prompt_tokens"] > 500
        assert line["provenance"]["output_tokens"] > 0
    cost = evaluated.report["figures"]["cost"]
    for name in ("prompt_tokens", "cached_tokens", "output_tokens"):
        assert cost[name] == sum(line["provenance"][name] for line in evaluated.lines)
    assert cost["cached_tokens"] > 0, "the policy's part of the prompt is shared"


def test_the_reports_figures_are_scikit_learns_on_the_same_predictions(
    evaluated: Evaluated,
) -> None:
    figures, lines = evaluated.report["figures"], evaluated.lines
    golden = [line["golden"]["violates"] for line in lines]
    called = [line["decision"] == "violates" for line in lines]
    expected = metrics.precision_recall_fscore_support(
        golden, called, average="binary", zero_division=0
    )
    decision = figures["decision"]
    shown = [decision[name]["value"] or 0 for name in ("precision", "recall", "f1")]
    assert shown == pytest.approx(expected[:3])
    codes = [line["golden"]["category"] for line in lines]
    predicted = [line["policy"]["category"] or line["decision"] for line in lines]
    names = [score["name"] for score in figures["categories"]]
    by_name = metrics.f1_score(codes, predicted, labels=names, average=None, zero_division=0)
    assert [score["f1"]["value"] or 0 for score in figures["categories"]] == pytest.approx(by_name)
    known = [(g, line["confidence"]["value"]) for g, line in zip(golden, lines, strict=True)]
    known = [(g, value) for g, value in known if value is not None]
    assert known, "the engine measures a confidence"
    brier = metrics.brier_score_loss(*map(list, zip(*known, strict=True)))
    assert figures["calibration"]["brier"] == pytest.approx(brier)


def test_more_effort_is_another_side_judged_anew(evaluated: Evaluated) -> None:
    comparison = evaluated.report["comparison"]
    if evaluated.slug != SLUGS[1]:
        assert comparison is None
        return
    assert "at high effort" in comparison["against"]
    lines = (evaluated.folder / "predictions-against.jsonl").read_text().splitlines()
    others = [json.loads(line) for line in lines]
    assert {line["provenance"]["effort"] for line in others} == {"high"}
    # Nothing of the first side's answers was given out again.
    assert {line["provenance"]["tier"] for line in others} == {"safeguard"}
    pairs = zip(evaluated.lines, others, strict=True)
    flips = [
        this["golden"]["row"] for this, other in pairs if this["decision"] != other["decision"]
    ]
    assert [flip["row"] for flip in comparison["flips"]] == flips


def colours(picture: bytes) -> dict[tuple[int, int, int], int]:
    """Pixels of each colour."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    return {colour: n for n, colour in image.getcolors(image.width * image.height) or ()}  # type: ignore[misc]


PRECISION, RECALL, F1 = (0x09, 0x69, 0xDA), (0x1A, 0x7F, 0x37), (0x82, 0x50, 0xDF)


def test_a_browser_shows_the_plots_and_asks_for_nothing(evaluated: Evaluated) -> None:
    figures = evaluated.report["figures"]
    with open_page() as page:
        page.open(evaluated.folder / "report.html")
        assert page.requests == [(evaluated.folder / "report.html").resolve().as_uri()]
        assert page.messages == []
        # The bars: one for each figure that is defined, as wide in the browser as the figure is large.
        scores = figures["categories"]
        kinds = ("precision", "recall", "f1")
        values = [
            s[kind]["value"] for s in scores for kind in kinds if s[kind]["value"] is not None
        ]
        axis = page.value(
            "(lines => (lines[5].getBoundingClientRect().x - lines[0].getBoundingClientRect().x))"
            "(document.querySelectorAll('#bars line.grid'))"
        )
        widths = page.value(
            "[...document.querySelectorAll('#bars rect.bar')].map(r => r.getBoundingClientRect().width)"
        )
        # A bar of nothing is drawn as a line, so that it is seen.
        expected = [max(value * 300, 1.5) * axis / 300 for value in values]
        assert widths == pytest.approx(expected, abs=0.5)
        names = page.value(
            "[...document.querySelectorAll('#bars > text[text-anchor=end]')].map(t => t.textContent)"
        )
        assert names == [f"{score['name']} ({score['support']})" for score in scores]
        assert page.value(
            "[...document.querySelectorAll('svg text')].every(t => t.getBoundingClientRect().width > 0)"
        ), "there are fonts, and they are used"
        seen = colours(page.picture("#bars"))
        area = {
            colour: sum((s[kind]["value"] or 0) for s in scores)
            for kind, colour in zip(kinds, (PRECISION, RECALL, F1), strict=True)
        }
        for colour, total in area.items():
            # Whiskers lie over the bars, and edges are mixed: most of each bar is its own colour all the same.
            whole = total * axis * 17 * axis / 300
            assert seen.get(colour, 0) >= 0.6 * whole, f"{colour}: {seen.get(colour, 0)} of {whole}"
        # The reliability curve: a mark for each bin that holds posts, where its figures put it.
        bins = [each for each in figures["calibration"]["bins"] if each["rows"]]
        marks = page.value(
            "[...document.querySelectorAll('#reliability circle')].map("
            "c => [+c.getAttribute('cx'), +c.getAttribute('cy')])"
        )
        for mark, each in zip(marks, bins, strict=True):
            assert mark == pytest.approx(
                [46 + 300 * each["confidence"], 46 + 300 * (1 - each["violating"]["value"])],
                abs=0.1,
            )
        assert colours(page.picture("#reliability")).get(PRECISION, 0) > 20 * len(bins)
        # The confusion matrix: what people say, down, adds up to their labels.
        cells = page.value(
            "[...document.querySelectorAll('#confusion-matrix tbody tr')].map("
            "r => [...r.querySelectorAll('td')].map(c => +c.textContent))"
        )
        assert cells == figures["confusion"]["counts"]


def test_the_page_can_be_read_without_seeing_it_and_in_the_dark(evaluated: Evaluated) -> None:
    with open_page(dark=True) as page:
        page.open(evaluated.folder / "report.html")
        tree = page.call("Accessibility.getFullAXTree")["nodes"]
        named = {
            (node["role"]["value"], node.get("name", {}).get("value"))
            for node in tree
            if not node["ignored"]
        }
        assert ("image", "Precision, recall and F1 of each label, with 95 % intervals") in named
        assert ("image", "Reliability curve: the share that violates, by confidence") in named
        assert {"columnheader", "rowheader", "heading", "main"} <= {role for role, _ in named}
        paper = max(seen := colours(page.picture("#bars")), key=lambda colour: seen[colour])
        assert paper == (0x0D, 0x11, 0x17)
        assert page.value("document.documentElement.lang") == "en"


def test_classify_explains_with_the_prompt_that_the_model_was_given() -> None:
    text = "A made-up post <|end|> with a marker."
    done = subprocess.run(
        [
            *(sys.executable, "-m", "stream_guard", "classify", text, "--policy"),
            *("dangerous-content", "--explain", "--json", "--path", str(ROOT / "policies")),
        ],
        env={**os.environ, "STREAM_GUARD_ENGINE__MODEL": str(MODEL), **SETTINGS},
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    verdict = json.loads(done.stdout)
    assert verdict["provenance"]["tier"] == "safeguard"
    assert [step["tier"] for step in verdict["provenance"]["trail"]] == ["duplicates", "safeguard"]
    said = verdict["explanation"]
    assert len(said) == verdict["provenance"]["attempts"]
    assert sum(each["prompt_tokens"] for each in said) == verdict["provenance"]["prompt_tokens"]
    assert sum(each["completion_tokens"] for each in said) == verdict["provenance"]["output_tokens"]
    policy = (ROOT / "policies" / "dangerous-content" / "policy.md").read_text()
    for each in said:
        assert each["prompt"].startswith("<|start|>system<|message|>You are ChatGPT")
        assert policy.strip() in each["prompt"]
        framed = f"## Post to judge\n> {text}"
        assert each["prompt"].endswith(f"<|start|>user<|message|>{framed}<|end|><|start|>assistant")
        assert each["analysis"] in each["completion"]
