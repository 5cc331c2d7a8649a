"""The page Policies: what everybody sees, and how authors edit a draft."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stream_guard.console.pages.policies.page import POLICIES
from stream_guard.console.security.roles import Role
from tests.console import served
from tests.unit.console.policies_folder import RULES, TEXT, PoliciesFolder, form_of

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)> javascript:alert(1) \u202egnp.exe"
DESK = "/policies/touting"


@pytest.fixture
def folder(tmp_path: Path) -> PoliciesFolder:
    return PoliciesFolder(tmp_path)


@pytest.mark.parametrize("role", [Role.READ_ONLY, Role.REVIEWER])
async def test_everybody_sees_the_policies_and_only_authors_get_an_editor(
    folder: PoliciesFolder, role: Role
) -> None:
    async with served(folder.settings) as console:
        async with console.visitor(role) as visitor:
            assert "touting" in (await visitor.get("/policies")).words
            page = await visitor.get(DESK)
            assert page.status == 200
            assert "asks too much" in page.words
            for part in ("VIOLATES: violates policy.md:3", "TT1 Price: violates", "TT1.a, TT0.a"):
                assert part in page.words
            assert [form.get("action") for form in page.tree.forms] == ["/appearance", "/sign-out"]
        async with console.visitor(Role.AUTHOR) as visitor:
            assert form_of(await visitor.get(DESK), f"{DESK}/save")["text-policy.md"] == TEXT


def test_whatever_changes_something_needs_an_author() -> None:
    changing = [route for route in POLICIES.routes if route.method == "POST"]
    assert changing
    assert {route.role for route in changing} == {Role.AUTHOR}


async def test_texts_are_checked_while_they_are_typed_and_not_saved(folder: PoliciesFolder) -> None:
    async with served(folder.settings) as console, console.visitor(Role.AUTHOR) as visitor:
        fields = form_of(await visitor.get(DESK), f"{DESK}/save")
        assert (await visitor.post(f"{DESK}/check", fields, csrf="x")).status == 403
        fields["text-policy.md"] = TEXT + "- TT1.a once more\n\n## Violates (TT2 - Fraud)\n"
        said = (await visitor.post(f"{DESK}/check", fields)).words
        assert "1 of them errors" in said
        assert "SG109 policy.md:" in said
        assert "TT2 Fraud: violates" in said
        assert "+- TT1.a once more" in said
        fields["text-policy.yaml"] = "gates: {min_f1: 2}\n"
        assert "error SG100 policy.yaml:1" in (await visitor.post(f"{DESK}/check", fields)).words
        fields["text-policy.md"] = "a" * 300_000
        assert "over 262,144 bytes" in (await visitor.post(f"{DESK}/check", fields)).words
        assert not folder.draft.exists()


async def test_an_edit_becomes_a_draft_and_what_is_live_stays(folder: PoliciesFolder) -> None:
    live = folder.live
    async with served(folder.settings) as console, console.visitor(Role.AUTHOR) as visitor:
        fields = form_of(await visitor.get(DESK), f"{DESK}/save")
        # Browsers send CR LF.
        fields["text-policy.md"] = (TEXT + "- TT0.b swaps\n").replace("\n", "\r\n")
        fields["text-rules.yaml"] = RULES % "quote"
        answer = await visitor.post(f"{DESK}/save", fields)
        assert (answer.status, answer.headers["Location"]) == (303, DESK)
        assert (folder.draft / "policy.md").read_text() == TEXT + "- TT0.b swaps\n"
        assert (folder.draft / "rules.yaml").read_text() == RULES % "quote"
        assert (folder.draft / "golden.csv").is_symlink()
        assert folder.live == live
        page = await visitor.get(DESK)
        assert "This is the draft" in page.words
        assert "+- TT0.b swaps" in page.words
        fields = form_of(page, f"{DESK}/save") | {"text-rules.yaml": ""}
        assert (await visitor.post(f"{DESK}/save", fields)).status == 303
        assert not (folder.draft / "rules.yaml").exists()
        again = form_of(await visitor.get(DESK), f"{DESK}/draft") | {"what": "again"}
        assert (await visitor.post(f"{DESK}/draft", again)).status == 303
        assert (folder.draft / "policy.md").read_text() == TEXT


async def test_a_text_that_changed_meanwhile_is_not_overwritten_and_none_is_lost(
    folder: PoliciesFolder,
) -> None:
    async with served(folder.settings) as console, console.visitor(Role.AUTHOR) as visitor:
        mine = form_of(await visitor.get(DESK), f"{DESK}/save")
        theirs = dict(mine) | {"text-policy.md": TEXT + "- TT0.b theirs\n"}
        mine["text-policy.md"] = TEXT + "- TT0.b mine\n"
        assert (await visitor.post(f"{DESK}/save", theirs)).status == 303
        refused = await visitor.post(f"{DESK}/save", mine)
        assert refused.status == 409
        assert "changed this policy since you opened it" in refused.words
        assert (folder.draft / "policy.md").read_text() == theirs["text-policy.md"]
        fields = form_of(refused, f"{DESK}/save")
        assert fields["text-policy.md"] == mine["text-policy.md"]
        again = {"what": "again", "digest": mine["digest"]}
        assert (await visitor.post(f"{DESK}/draft", again)).status == 409
        assert (folder.draft / "policy.md").read_text() == theirs["text-policy.md"]
        assert (await visitor.post(f"{DESK}/save", fields)).status == 303
        assert (folder.draft / "policy.md").read_text() == mine["text-policy.md"]


async def test_a_draft_of_another_version_is_named_and_can_follow(folder: PoliciesFolder) -> None:
    async with served(folder.settings) as console, console.visitor(Role.AUTHOR) as visitor:
        await visitor.post(f"{DESK}/save", form_of(await visitor.get(DESK), f"{DESK}/save"))
        old = form_of(await visitor.get(DESK), f"{DESK}/draft") | {"what": "follow"}
        (folder.path / "touting" / "policy.md").write_text(TEXT + "- TT0.b swaps\n")
        page = await visitor.get(DESK)
        assert "went live after this draft was made" in page.words
        assert (await visitor.post(f"{DESK}/draft", old)).status == 409
        follow = form_of(page, f"{DESK}/draft") | {"what": "follow"}
        assert (await visitor.post(f"{DESK}/draft", follow)).status == 303
        assert "went live after" not in (await visitor.get(DESK)).words


async def test_texts_and_names_of_strangers_are_escaped(folder: PoliciesFolder) -> None:
    live = folder.path / "touting"
    (live / "policy.md").write_text(
        f"{TEXT}\n## Violates (TT2 - {HOSTILE})\n\n- TT2.a {HOSTILE}\n</textarea>{HOSTILE}\n"
    )
    (live / "policy.yaml").write_text("effort: low\n")
    async with served(folder.settings) as console:
        for role in (Role.READ_ONLY, Role.AUTHOR):
            async with console.visitor(role) as visitor:
                for path in ("/policies", DESK):
                    page = await visitor.get(path)
                    assert page.status == 200, page.words
                    assert "<img" not in page.text
                    assert "<script>" not in page.text
                    outside = (
                        page.text.partition("<textarea")[0] + page.text.rpartition("</textarea>")[2]
                    )
                    assert "\u202e" not in outside
        async with console.visitor(Role.AUTHOR) as visitor:
            fields = form_of(await visitor.get(DESK), f"{DESK}/save")
            assert HOSTILE in fields["text-policy.md"]
            fields["text-policy.yaml"] = f"{HOSTILE}: 1\n"
            part = await visitor.post(f"{DESK}/check", fields)
            assert "SG100" in part.words
            assert "<img" not in part.text


async def test_a_policy_that_does_not_exist_and_a_folder_that_cannot_be_read(
    folder: PoliciesFolder,
) -> None:
    async with served(folder.settings) as console, console.visitor(Role.AUTHOR) as visitor:
        assert (await visitor.get("/policies/..%2F..%2Fetc")).status == 404
        assert (await visitor.get("/policies/nothing")).status == 404
        (folder.path / "touting" / "policy.yaml").write_text("gates: 1\n")
        page = await visitor.get("/policies")
        assert page.status == 200
        assert "policy.yaml" in page.words
        assert (await visitor.get(DESK)).status == 422
