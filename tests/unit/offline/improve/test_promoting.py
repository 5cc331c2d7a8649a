"""A version goes live with its record or not at all, and an earlier one returns from the archive byte for byte."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import orjson
import pytest
from blockbuster import blockbuster_ctx

from stream_guard.core.errors import EvidenceError, LimitError, OperatorError, PolicyError
from stream_guard.judging.archive.archive import FolderArchive
from stream_guard.offline.improve.gates import Gate, GoldenFigures, Measured
from stream_guard.offline.improve.promoting import Change, history, promote, rollback
from stream_guard.policies.drafts import draft_folder, make_draft, read_draft, rebase
from stream_guard.policies.store import load_policies
from stream_guard.settings import EngineSettings, PoliciesSettings, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from stream_guard.judging.archive.promotion import Promotion
    from stream_guard.policies.policy import Policy

HELD = [Gate("min_f1", 0.8, 0.9, held=True, of="golden.csv")]
MEASURED = Measured(GoldenFigures("golden.csv", "0" * 64, 9, 0.5, 0.9, 1, 1, 0))


class Loop:
    """A folder of policies with one policy, and an archive in a folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "policies"
        (self.path / "spam").mkdir(parents=True)
        (self.path / "spam" / "policy.md").write_text("# Spam one\n")
        self.archive = folder / "archive"
        self.settings = Settings(
            engine=EngineSettings(kind="scripted"),
            policies=PoliciesSettings(path=self.path, archive="folder", archive_path=self.archive),
        )
        self.now_ms = 0

    def live(self) -> Policy:
        return load_policies(self.path).policies["spam"]

    def change(self, live: Policy | None = None) -> Change:
        self.now_ms += 1
        return Change(self.settings, self.path, live or self.live(), "ann", "why", self.now_ms)

    def edit(self, text: str, metadata: str | None = None) -> None:
        folder, _ = make_draft(self.path, self.live())
        rebase(self.path, self.live())
        (folder / "policy.md").write_text(text)
        if metadata is not None:
            (folder / "policy.yaml").write_text(metadata)

    async def promote(self, gates: list[Gate] = HELD) -> Promotion:
        return await promote(self.change(), read_draft(self.path, "spam"), gates, MEASURED)


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path)


async def test_a_promotion_is_live_and_recorded_and_a_rollback_takes_it_back(loop: Loop) -> None:
    one = loop.live()
    loop.edit("# Spam two\n", "version: two\n")
    made = await loop.promote()
    two = loop.live()
    assert (two.text, two.version) == ("# Spam two\n", "two")
    assert (made.old.sha256, made.new.sha256) == (one.sha256, two.sha256)
    back = await rollback(loop.change(), None)
    assert loop.live() == one
    assert not (loop.path / "spam" / "policy.yaml").exists()
    assert back.previous == (await history(loop.settings, "spam"))[0].sha256
    told = await history(loop.settings, "spam")
    assert [(each.kind, each.new.version) for each in told] == [
        ("promote", "two"),
        ("rollback", one.version),
    ]
    assert told[0].gates == (HELD[0]._asdict(),)
    assert told[0].figures["golden"]["f1_new"] == 0.9
    with pytest.raises(OperatorError, match="no promotion made the live version"):
        await rollback(loop.change(), None)
    await rollback(loop.change(), "two")
    assert loop.live() == two
    await rollback(loop.change(), one.sha256[:8])
    assert loop.live() == one
    with pytest.raises(OperatorError, match="is live already"):
        await rollback(loop.change(), one.version)
    with pytest.raises(OperatorError, match="no version"):
        await rollback(loop.change(), "three")


async def test_no_file_is_read_or_written_in_the_event_loop(loop: Loop) -> None:
    loop.edit("# Spam two\n")
    draft, change = read_draft(loop.path, "spam"), loop.change()
    with blockbuster_ctx("stream_guard"):
        await promote(change, draft, HELD, MEASURED)
    back = loop.change()
    with blockbuster_ctx("stream_guard"):
        await rollback(back, None)
    assert loop.live().text == "# Spam one\n"


async def test_a_gate_that_does_not_hold_leaves_everything_as_it_was(loop: Loop) -> None:
    one = loop.live()
    loop.edit("# Spam two\n")
    failing = HELD[0]._replace(held=False, name="max_flips")
    with pytest.raises(LimitError, match=r"max_flips is 0\.8, measured was 0\.9") as caught:
        await loop.promote([HELD[0], failing])
    assert "min_f1" not in str(caught.value)
    with pytest.raises(LimitError):
        await loop.promote([])
    assert loop.live() == one
    assert not loop.archive.exists()


async def test_a_draft_of_another_version_is_refused(loop: Loop) -> None:
    loop.edit("# Spam two\n")
    (loop.path / "spam" / "policy.md").write_text("# Spam by hand\n")
    with pytest.raises(PolicyError, match="was made from the version"):
        await loop.promote()
    rebase(loop.path, loop.live())
    await loop.promote()
    make_draft(loop.path, loop.live(), fresh=True)
    with pytest.raises(PolicyError, match="is equal to the live version"):
        await loop.promote()


async def test_a_live_version_that_changed_since_the_measurement_is_refused(loop: Loop) -> None:
    loop.edit("# Spam two\n")
    change, draft = loop.change(), read_draft(loop.path, "spam")
    (loop.path / "spam" / "policy.md").write_text("# Spam by hand\n")
    with pytest.raises(PolicyError, match="was edited in the meantime"):
        await promote(change, draft, HELD, MEASURED)
    assert loop.live().text == "# Spam by hand\n"
    assert await history(loop.settings, "spam") == []


@pytest.mark.parametrize(
    ("text", "metadata", "why"),
    [
        ("# Spam\n\n## Banned (S1 - a)\n\n- S1.a one\n- S1.a two\n", None, "SG109"),
        ("# Spam two\n", "golden_set: none.csv\n", "no file 'none.csv'"),
    ],
)
async def test_a_draft_that_a_service_would_refuse_is_not_promoted(
    loop: Loop, text: str, metadata: str | None, why: str
) -> None:
    loop.edit(text, metadata)
    with pytest.raises(PolicyError, match=why):
        await loop.promote()
    assert loop.live().text == "# Spam one\n"
    assert await history(loop.settings, "spam") == []


async def test_after_an_edit_by_hand_a_rollback_returns_what_was_promoted(loop: Loop) -> None:
    loop.edit("# Spam two\n")
    await loop.promote()
    (loop.path / "spam" / "policy.md").write_text("# Spam by hand\n")
    by_hand = loop.live()
    await rollback(loop.change(), None)
    assert loop.live().text == "# Spam two\n"
    await rollback(loop.change(), by_hand.sha256[:12])
    assert loop.live() == by_hand


async def test_a_record_that_was_altered_or_removed_is_noticed(loop: Loop) -> None:
    for text in ("# Spam two\n", "# Spam three\n"):
        loop.edit(text)
        await loop.promote()
    first, second = await history(loop.settings, "spam")
    files = {file.stem: file for file in (loop.archive / "promotions" / "spam").iterdir()}
    assert files.keys() == {first.sha256, second.sha256}
    content = files[second.sha256].read_bytes()
    files[second.sha256].chmod(0o644)
    files[second.sha256].write_bytes(content.replace(b'"ann"', b'"bob"'))
    with pytest.raises(EvidenceError, match="was altered"):
        await history(loop.settings, "spam")
    files[second.sha256].write_bytes(content)
    files[first.sha256].unlink()
    with pytest.raises(EvidenceError, match=f"lacks the record {first.sha256[:12]}"):
        await history(loop.settings, "spam")


async def test_a_note_that_is_no_record_is_noticed(loop: Loop) -> None:
    content = orjson.dumps({"format": "another"})
    name = hashlib.sha256(content).hexdigest()
    await FolderArchive(loop.archive).add_note(f"promotions/spam/{name}", content)
    with pytest.raises(EvidenceError, match="no record of a promotion"):
        await history(loop.settings, "spam")
    assert await history(loop.settings, "other") == []
    # The archive's own entries are not disturbed.
    assert await FolderArchive(loop.archive).load() == []
    assert draft_folder(loop.path, "spam").parent.name == "_drafts"
