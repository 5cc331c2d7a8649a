"""``stream-guard eval`` on the fixed rule: files, thresholds, comparisons, and one clear line for bad use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from stream_guard.cli.main import app
from stream_guard.core.errors import StreamGuardError
from stream_guard.core.exit_codes import ExitCode

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "policies"
DC = "dangerous-content"
SCRIPTED = {"STREAM_GUARD_ENGINE__KIND": "scripted"}
GOLDEN = """\
A notice: made up for tests., , ,
Example,Classification,Language
a [violates] post,DC1,en
"another [violates] post,
over two lines",DC2,de
a fine post,DC0,en
a bad post that the rule misses,DC1,de
"""


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    file = tmp_path / "golden.csv"
    file.write_text(GOLDEN)
    return file


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(file: Path | str, out: Path, *arguments: str, policy: str = DC) -> Result:
    command = ["eval", "--policy", policy, "--path", str(SHIPPED), "--out", str(out)]
    return CliRunner().invoke(app, [*command, str(file), *arguments], env=SCRIPTED)


def fails(result: Result, exit_code: int) -> str:
    assert isinstance(result.exception, StreamGuardError), result.output
    assert result.exception.exit_code == exit_code
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_a_golden_set_is_judged_counted_and_written(golden: Path, out: Path) -> None:
    result = run(golden, out, "--json")
    assert result.exit_code == ExitCode.CLEAN, result.output
    report = json.loads(result.stdout)
    assert report == json.loads((out / "report.json").read_text())
    figures = report["figures"]
    assert figures["rows"] == 4
    assert (figures["decision"]["support"], figures["decision"]["hits"]) == (3, 2)
    assert figures["decision"]["f1"]["value"] == pytest.approx(0.8)
    assert [part["name"] for part in figures["languages"]] == ["de", "en"]
    assert [part["name"] for part in figures["tiers"]] == ["scripted"]
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [line["golden"]["row"] for line in lines] == [3, 4, 6, 7]
    page = (out / "report.html").read_text()
    assert "a bad post that the rule misses" in page


def test_predictions_are_verdicts_with_the_label_added_and_without_the_text(
    golden: Path, out: Path
) -> None:
    import jsonschema

    from stream_guard.records.verdict_event import verdict_schema

    run(golden, out)
    content = (out / "predictions.jsonl").read_text()
    assert "fine post" not in content
    for line in content.splitlines():
        prediction = json.loads(line)
        del prediction["golden"]
        jsonschema.validate(prediction, verdict_schema())


def test_labels_of_both_kinds_count_each_row_once(tmp_path: Path, out: Path) -> None:
    file = tmp_path / "golden.csv"
    file.write_text(
        "id,text,label\na,[violates] one,DC1\nb,[violates] two,INVALID\nc,three,yes\nd,four,DC0\n"
    )
    result = run(file, out)
    table = {line.split()[0]: line.split() for line in result.stdout.splitlines()[2:]}
    assert table["violates"][:3] == ["violates", "3", "2"]
    assert [line.split()[0] for line in result.stdout.splitlines()].count("violates") == 1
    assert table["DC1"][:3] == ["DC1", "1", "1"]
    assert "by category without 2 posts, whose label says only whether it violates" in result.stdout
    figures = json.loads((out / "report.json").read_text())["figures"]
    assert {score["name"] for score in figures["categories"]} == {"DC1", "DC0"}
    assert sum(map(sum, figures["confusion"]["counts"])) == 2


def test_a_second_run_says_that_it_replaced_the_first(golden: Path, out: Path) -> None:
    assert "was replaced" not in run(golden, out).stderr
    told = run(golden, out).stderr
    assert f"the report of an earlier run in {out} was replaced; --out keeps both" in told


@pytest.mark.parametrize("name", ["report.json", "report.html", "predictions.jsonl"])
def test_files_of_something_else_are_not_replaced(golden: Path, out: Path, name: str) -> None:
    out.mkdir()
    (out / "report.html").touch()  # left by an evaluation that failed
    (out / name).write_text("mine")
    told = fails(run(golden, out), ExitCode.USAGE)
    assert told.startswith(f"--out {out}: {name} is there already, and is not of an earlier eval")
    assert (out / name).read_text() == "mine"
    assert "was replaced" in run(golden, out, "--force").stderr


def test_the_report_of_another_policy_is_not_replaced(golden: Path, out: Path) -> None:
    run(golden, out)
    labels = ("--map", "dc1=violates", "--map", "dc2=violates", "--map", "dc0=safe")
    other = run(golden, out, *labels, policy="age-restricted-goods-and-services")
    assert "is not of an earlier evaluation of age-" in fails(other, ExitCode.USAGE)


def test_records_of_a_topic_are_read_by_its_own_settings(tmp_path: Path, out: Path) -> None:
    places = {"text": ["/data/selftext", "/data/body"], "id": "/data/name", "markup": "html"}
    rows = [
        {"data": {"name": "t3_a", "selftext": "a [vio<b></b>lates] post"}, "label": "violates"},
        {"data": {"name": "t1_b", "body": "fine"}, "label": "safe"},
    ]
    golden = tmp_path / "golden.jsonl"
    golden.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAM_GUARD_POST__TOPICS", json.dumps({"reddit": places}))
        result = run(golden, out, "--topic", "reddit", "--json")
        assert "no column named text" in fails(run(golden, out), ExitCode.USAGE)
        assert (
            "--topic redit: no post.topics.redit in the settings (did you mean reddit?)"
            in fails(run(golden, out, "--topic", "redit"), ExitCode.USAGE)
        )
    assert result.exit_code == ExitCode.CLEAN, result.output
    lines = (out / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["content"]["id"] for line in lines] == ["t3_a", "t1_b"]


@pytest.mark.parametrize("mark", [";", "\t"])
def test_semicolons_and_tabs_separate_cells_too(tmp_path: Path, out: Path, mark: str) -> None:
    file = tmp_path / "golden.csv"
    file.write_text(f"text{mark}label\na [violates] post, with a comma{mark}DC1\nfine{mark}DC0\n")
    report = json.loads(run(file, out, "--json").stdout)
    assert (report["figures"]["rows"], report["figures"]["accuracy"]["value"]) == (2, 1.0)


def test_rows_are_named_by_their_id(tmp_path: Path, out: Path) -> None:
    file = tmp_path / "golden.csv"
    file.write_text("id,text,label\npost-a,[violates],DC1\npost-b,fine,DC1\n")
    run(file, out)
    earlier = out / "earlier.jsonl"
    earlier.write_text(
        (out / "predictions.jsonl").read_text().replace('"violates","', '"safe","', 1)
    )
    shown = run(file, out, "--against", str(earlier)).stdout
    assert "post-a: safe -> violates" in shown
    page = (out / "report.html").read_text()
    assert '<th scope="row">post-b</th>' in page


def test_the_page_can_be_without_posts(golden: Path, out: Path) -> None:
    run(golden, out, "--no-texts")
    assert "the rule misses" not in (out / "report.html").read_text()


def test_a_post_cannot_become_part_of_the_page(tmp_path: Path, out: Path) -> None:
    file = tmp_path / "golden.jsonl"
    file.write_text(json.dumps({"text": "<script>alert(1)</script><img src=//x>", "label": "DC1"}))
    run(file, out)
    page = (out / "report.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "<img" not in page


@pytest.mark.parametrize(
    ("option", "bound", "exit_code"),
    [
        ("--min-f1", "0.8", ExitCode.CLEAN),
        ("--min-f1", "0.81", ExitCode.LIMIT),
        ("--min-precision", "100%", ExitCode.CLEAN),
        ("--min-recall", "67%", ExitCode.LIMIT),
        ("--max-undecided", "0", ExitCode.CLEAN),
    ],
)
def test_a_missed_threshold_is_an_exit_code(
    golden: Path, out: Path, option: str, bound: str, exit_code: int
) -> None:
    result = run(golden, out, option, bound)
    if exit_code == ExitCode.CLEAN:
        assert result.exit_code == ExitCode.CLEAN, result.output
    else:
        assert fails(result, exit_code).startswith(f"{option} is ")
    checks = json.loads((out / "report.json").read_text())["checks"]
    assert [(each["option"], each["passed"]) for each in checks] == [
        (option, exit_code == ExitCode.CLEAN)
    ]


def test_every_language_has_its_own_figures_and_threshold(golden: Path, out: Path) -> None:
    # English: 1 of 1 found. German: 1 of 2 found, without a false alarm, so that F1 is 2/3.
    result = run(golden, out, "--min-f1-by-language", "0.66")
    assert result.exit_code == ExitCode.CLEAN, result.output
    table = [line.split() for line in result.stdout.splitlines()]
    assert ["de", "2", "2", "1.000", "0.500", "0.667"] in table
    assert ["en", "2", "1", "1.000", "1.000", "1.000"] in table
    checks = json.loads((out / "report.json").read_text())["checks"]
    assert [(each["option"], each["passed"]) for each in checks] == [
        ("--min-f1-by-language (de)", True),
        ("--min-f1-by-language (en)", True),
    ]
    told = fails(run(golden, out, "--min-f1-by-language", "70%"), ExitCode.LIMIT)
    assert told == "--min-f1-by-language (de) is 0.7, reached was 0.667"


def test_a_language_without_violating_posts_passes_no_threshold(golden: Path, out: Path) -> None:
    golden.write_text(GOLDEN + "un bon message,DC0,fr\n")
    told = fails(run(golden, out, "--min-f1-by-language", "0.5"), ExitCode.LIMIT)
    assert told.startswith("--min-f1-by-language (fr) is 0.5, reached was nothing")


def test_a_set_without_languages_is_rejected_before_judging(golden: Path, out: Path) -> None:
    golden.write_text(GOLDEN.replace("Language", "Tongue"))
    told = fails(run(golden, out, "--min-f1-by-language", "0.5"), ExitCode.USAGE)
    assert told == (
        f"--min-f1-by-language: no row of {golden} has a language; name its column with --language-column"
    )
    assert not out.exists()
    arguments = ("--min-f1-by-language", "0.5", "--language-column", "Tongue")
    assert run(golden, out, *arguments).exit_code == ExitCode.CLEAN


def test_a_set_can_be_judged_several_times(golden: Path, out: Path) -> None:
    result = run(golden, out, "--repeat", "2")
    assert result.exit_code == ExitCode.CLEAN, result.output
    assert "2 runs: 0 flips (0.0%)" in result.stdout
    assert (out / "predictions-run-2.jsonl").is_file()


def test_no_positive_at_all_passes_no_lower_bound(tmp_path: Path, out: Path) -> None:
    file = tmp_path / "golden.csv"
    file.write_text("text,label\na fine post,safe\n")
    assert "there is no such figure" in fails(run(file, out, "--min-f1", "0"), ExitCode.LIMIT)


def other_version(tmp_path: Path) -> Path:
    """A folder of policies in which another category comes first, so that the rule names that one."""
    folder = tmp_path / "before"
    shutil.copytree(SHIPPED, folder)
    file = folder / DC / "policy.md"
    file.write_text(file.read_text() + "\nA last line.\n")
    return folder


def test_two_versions_are_compared_row_by_row(golden: Path, out: Path, tmp_path: Path) -> None:
    folder = other_version(tmp_path)
    for place in (folder, folder / DC):
        result = run(golden, out, "--against", str(place), "--max-flips", "0%", "--json")
        assert result.exit_code == ExitCode.CLEAN, result.output
        comparison = json.loads(result.stdout)["comparison"]
        assert (comparison["rows"], comparison["flips"]) == (4, [])
    assert (out / "predictions-against.jsonl").exists()


def test_flips_against_an_earlier_run_are_listed_and_bounded(golden: Path, out: Path) -> None:
    run(golden, out)
    earlier = out / "earlier.jsonl"
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    lines[0]["decision"] = "safe"
    earlier.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = run(golden, out, "--against", str(earlier), "--max-flips", "25%")
    assert result.exit_code == ExitCode.CLEAN, result.output
    assert "row 3: safe -> violates" in result.stdout
    assert "1 flip (25.0%), 1 better, 0 worse" in result.stdout
    told = fails(run(golden, out, "--against", str(earlier), "--max-flips", "24%"), ExitCode.LIMIT)
    assert told == "--max-flips is 0.24, reached was 0.250"


@pytest.mark.parametrize("side", ["high", "age-restricted-goods-and-services"])
def test_a_side_may_be_an_effort_or_another_policy(golden: Path, out: Path, side: str) -> None:
    result = run(golden, out, "--against", side, "--json")
    assert result.exit_code == ExitCode.CLEAN, result.output
    against = json.loads(result.stdout)["comparison"]["against"]
    assert ("at high effort" in against) if side == "high" else against.startswith(side)
    # The other side is judged anew: no answer of the first is known to it.
    lines = (out / "predictions-against.jsonl").read_text().splitlines()
    assert {json.loads(line)["provenance"]["tier"] for line in lines} == {"scripted"}


def test_a_comparison_says_what_each_side_costs(golden: Path, out: Path) -> None:
    run(golden, out)
    earlier = (out / "predictions.jsonl").rename(out / "earlier.jsonl")
    lines = [json.loads(line) for line in earlier.read_text().splitlines()]
    for line in lines:
        line["provenance"]["output_tokens"] = 300
        line["golden"]["seconds"] = 0.5
    earlier.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    said = run(golden, out, "--against", str(earlier)).stdout
    assert "cost: there 1,200 tokens out, 0.50 s a post (median); here 0 tokens out," in said


def test_another_golden_set_cannot_be_compared(golden: Path, out: Path) -> None:
    run(golden, out)
    earlier = (out / "predictions.jsonl").rename(out / "earlier.jsonl")
    golden.write_text(GOLDEN.replace("a fine post", "another post"))
    told = fails(run(golden, out, "--against", str(earlier)), ExitCode.USAGE)
    assert told.endswith("row 6 has a different text or label there; judge that side again")
    golden.write_text(GOLDEN + "one more,DC0,en\n")
    told = fails(run(golden, out, "--against", str(earlier)), ExitCode.USAGE)
    assert "its rows differ (4, and 5 on this side)" in told


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--against", "nothing"), "name an effort (low, medium, high), a policy (age-restr"),
        (("--against", DC), "this is the same policy"),
        (("--against", "low"), "both sides have this effort"),
        (("--against", "none.jsonl"), "none.jsonl: No such file or directory"),
        (("--against", "empty.jsonl"), "empty.jsonl: empty; name a predictions.jsonl"),
        (("--against", "bad.jsonl"), "bad.jsonl:2: not a prediction (KeyError)"),
        (("--against", "a-folder"), "no policies; write one as"),
        (("--max-flips", "2%"), "--max-flips needs a side to compare with"),
        (("--map", "bad"), "--map bad: write LABEL=MEANING"),
        (
            ("--map", "bad=worse"),
            "--map bad=worse: unknown meaning 'worse'; use one of: 0, 1, dc0, dc1",
        ),
        (
            ("--text-column", "txt"),
            "golden.csv: no column 'txt'; set --text-column to one of",
        ),
    ],
)
def test_bad_options_are_one_line_with_the_remedy(
    golden: Path, out: Path, arguments: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(golden.parent)
    Path("empty.jsonl").touch()
    Path("bad.jsonl").write_text("\n{}\n")
    Path("a-folder").mkdir()
    assert says in fails(run(golden, out, *arguments), ExitCode.USAGE)


def test_without_data_the_policys_golden_set_is_judged(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "policies"
    shutil.copytree(SHIPPED, folder)
    command = ["eval", "--policy", DC, "--path", str(folder), "--out", str(out), "--json"]
    told = fails(CliRunner().invoke(app, command, env=SCRIPTED), ExitCode.USAGE)
    assert told == (
        f"policy {DC!r} has no golden set; name the labelled posts as DATA, or set golden_set in its policy.yaml"
    )
    (folder / DC / "policy.yaml").write_text("golden_set: golden.csv\n")
    (folder / DC / "golden.csv").write_text(GOLDEN)
    result = CliRunner().invoke(app, command, env=SCRIPTED)
    assert result.exit_code == ExitCode.CLEAN, result.output
    assert json.loads(result.stdout)["source"] == str(folder / DC / "golden.csv")


def test_an_unknown_policy_names_those_that_there_are(golden: Path, out: Path) -> None:
    assert fails(run(golden, out, policy="nope"), ExitCode.USAGE).startswith("no policy 'nope'")


def test_an_output_folder_that_cannot_be_made_is_told_before_judging(golden: Path) -> None:
    told = fails(run(golden, golden / "out"), ExitCode.USAGE)
    assert told.startswith(f"--out {golden / 'out'}: Not a directory; name a folder")


@pytest.mark.parametrize("share", ["two", "101%", "-0.1", "nan"])
def test_a_share_that_makes_no_sense_is_a_usage_error(golden: Path, out: Path, share: str) -> None:
    assert run(golden, out, f"--min-f1={share}").exit_code == ExitCode.USAGE


def test_eval_shows_examples_and_says_what_a_missed_threshold_ends_with() -> None:
    text = " ".join(CliRunner().invoke(app, ["eval", "--help"]).stdout.split())
    assert "Example: stream-guard eval --policy" in text
    assert f"Exit code {ExitCode.LIMIT}" in text
    assert "--write" in CliRunner().invoke(app, ["policies", "calibrate", "--help"]).stdout


def predictions(path: Path, confidences: list[tuple[float, bool]]) -> Path:
    from stream_guard.policies.store import load_policies

    policy = load_policies(SHIPPED).policies[DC]
    lines = [
        {
            "decision": "violates" if confidence > 0.5 else "safe",
            "content": {"id": str(n), "sha256": "0" * 64, "language": None},
            "policy": {
                "id": DC,
                "version": policy.version,
                "sha256": policy.sha256,
                "category": None,
                "rule_ids": [],
                "rationale": None,
            },
            "confidence": {"value": confidence, "method": "m", "raw": confidence},
            "provenance": {
                "model": "some-model",
                "revision": None,
                "tier": "safeguard",
                "prompt_tokens": 1,
                "cached_tokens": 0,
                "output_tokens": 1,
            },
            "golden": {"row": n, "violates": violates, "category": None, "seconds": 0.1},
        }
        for n, (confidence, violates) in enumerate(confidences, 1)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_calibrate_writes_a_curve_that_the_policy_then_has(tmp_path: Path) -> None:
    from stream_guard.policies.store import load_policies

    folder = tmp_path / "policies"
    shutil.copytree(SHIPPED, folder)
    rows = [(0.05 + 0.9 * n / 60, n % 60 > 40 or n % 7 == 0) for n in range(60)]
    file = predictions(tmp_path / "predictions.jsonl", rows)
    arguments = ["policies", "calibrate", DC, "--path", str(folder), str(file), "--write"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == ExitCode.CLEAN, result.output
    assert "60 posts; mean squared error on held-out posts" in result.stderr
    policy = load_policies(folder).policies[DC]
    assert policy.calibration is not None
    assert (policy.calibration.policy_sha256, policy.calibration.model) == (
        policy.sha256,
        "some-model",
    )
    assert "in place of" not in result.stderr
    again = CliRunner().invoke(app, arguments)
    assert "calibration.json, in place of the earlier curve" in again.stderr


def test_calibrate_says_what_is_missing(tmp_path: Path) -> None:
    file = predictions(tmp_path / "predictions.jsonl", [(0.9, True)] * 3)
    command = ["policies", "calibrate", DC, "--path", str(SHIPPED)]
    told = fails(CliRunner().invoke(app, [*command, str(file)]), ExitCode.USAGE)
    assert told.startswith(
        "3 labelled posts with a confidence: 3 violating and 0 safe; a curve needs 20,"
    )
    told = fails(CliRunner().invoke(app, [*command, "none.jsonl"]), ExitCode.USAGE)
    assert told.startswith("none.jsonl: No such file or directory")
