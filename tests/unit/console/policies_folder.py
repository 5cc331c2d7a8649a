"""A folder with one policy, a golden set, gates and an archive, for a console that judges by the scripted engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_guard.policies.drafts import draft_folder
from stream_guard.policies.store import load_policies

if TYPE_CHECKING:
    from pathlib import Path

    from lxml import html

    from stream_guard.policies.policy import Policy
    from tests.console import Answer

TEXT = """\
# Touting

Answer `VIOLATES` or `SAFE`.

## Violates (TT1 - Price)

- TT1.a asks too much

## Safe (TT0 - Fair)

- TT0.a asks the face value
"""
YAML = "golden_set: golden.csv\ngates: {min_f1: 0.9}\n"
GOLDEN = "id,text,label\n1,[violates] pay 300,TT1\n2,[violates] a quote,TT0\n3,the face value,TT0\n"
RULES = "rules:\n  - {id: quotes, outcome: safe, terms: [%s]}\n"


class PoliciesFolder:
    """The folder; ``settings`` are those of the console."""

    def __init__(self, place: Path) -> None:
        self.path = place / "policies"
        live = self.path / "touting"
        live.mkdir(parents=True)
        for name, text in (("policy.md", TEXT), ("policy.yaml", YAML), ("golden.csv", GOLDEN)):
            (live / name).write_text(text)
        self.settings: dict[str, Any] = {
            "policies": {"path": self.path, "archive": "folder", "archive_path": place / "archive"},
            "engine": {"kind": "scripted"},
        }

    @property
    def live(self) -> Policy:
        """What is live."""
        return load_policies(self.path).policies["touting"]

    @property
    def draft(self) -> Path:
        """Where the draft is, or would be."""
        return draft_folder(self.path, "touting")


def form_of(page: Answer, action: str) -> dict[str, str]:
    """Return the fields of a form as a browser would send it, without the buttons.

    A browser drops a line end at the beginning of a ``textarea``; lxml does not.
    """
    tree: html.HtmlElement = page.tree
    form = next(form for form in tree.forms if form.get("action") == action)
    return {name: value.removeprefix("\n") for name, value in form.form_values() if name != "csrf"}
