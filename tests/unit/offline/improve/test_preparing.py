"""A draft is measured by every row of the golden set in force; it can add rows, and leave none out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stream_guard.core.errors import PolicyError
from stream_guard.offline.improve.preparing import Ready, prepare
from stream_guard.policies.drafts import make_draft, read_draft
from stream_guard.policies.store import load_policies
from stream_guard.settings import EngineSettings, Settings

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "# Spam\n\n## Safe (S0 - clean)\n\n## Banned (S1 - adverts)\n\n- S1.a bulk\n"
IN_FORCE = "text,label,title\nbuy,S1,\na quote,safe,\nbuy,S1,\nbuy,S1,now\n"


def prepared(path: Path, golden: str, live_metadata: str = "golden_set: golden.csv\n") -> Ready:
    """Prepare a draft that names the golden set ``other.csv``."""
    folder = path / "spam"
    folder.mkdir()
    (folder / "policy.md").write_text(TEXT)
    (folder / "policy.yaml").write_text(live_metadata)
    (folder / "golden.csv").write_text(IN_FORCE)
    (folder / "other.csv").write_text(golden)
    policies = load_policies(path)
    draft, _ = make_draft(path, policies.policies["spam"])
    (draft / "policy.yaml").write_text("golden_set: other.csv\ngates: {min_f1: 0.9}\n")
    settings = Settings(engine=EngineSettings(kind="scripted"))
    return prepare(settings, path, policies, policies.policies["spam"], read_draft(path, "spam"))


@pytest.mark.parametrize("live_metadata", ["golden_set: golden.csv\n", "version: one\n"])
def test_a_golden_set_that_adds_rows_is_taken_with_all_of_them(
    tmp_path: Path, live_metadata: str
) -> None:
    more = "label,title,text\nsafe,,hello\nS1,now,buy\nS1,,buy\nS1,,buy\nsafe,,a quote\n"
    ready = prepared(tmp_path, more, live_metadata)
    assert ready.golden == tmp_path / "spam" / "other.csv"
    assert len(ready.rows) == 5


@pytest.mark.parametrize(
    ("golden", "told"),
    [
        ("text,label,title\nbuy,S1,\nbuy,S1,\nbuy,S1,now\n", "lacks 1 row .* line 3 "),
        ("text,label,title\nbuy,S1,\na quote,S1,\nbuy,S1,\nbuy,S1,now\n", "lacks 1 row .* line 3 "),
        ("text,label,title\nbuy,S1,\na quote,safe,\nbuy,S1,now\n", "lacks 1 row .* line 4 "),
        ("text,label,title\nbuy,S1,\na quote,safe,\nbuy,S1,\n", "lacks 1 row .* line 5 "),
        ("text,label,title\nbuy,S1,\n", "lacks 3 rows .* line 3 "),
    ],
    ids=["left out", "another label", "once instead of twice", "without its title", "three"],
)
@pytest.mark.parametrize("live_metadata", ["golden_set: golden.csv\n", "version: one\n"])
def test_a_golden_set_that_lacks_or_changes_a_row_is_refused(
    tmp_path: Path, golden: str, told: str, live_metadata: str
) -> None:
    with pytest.raises(PolicyError, match=told) as caught:
        prepared(tmp_path, golden, live_metadata)
    assert str(tmp_path / "spam" / "golden.csv") in str(caught.value)
