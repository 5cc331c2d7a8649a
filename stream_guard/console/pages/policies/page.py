"""The routes of the page Policies: everybody sees, authors and leads change."""

from __future__ import annotations

from typing import Final

from stream_guard.console.page import Page, get, post
from stream_guard.console.pages.policies.editing import change_draft, check, save
from stream_guard.console.pages.policies.past import rollback, show_past
from stream_guard.console.pages.policies.viewing import show_all, show_one
from stream_guard.console.pages.policies.working import (
    gates,
    golden,
    promote,
    show_work,
    stop_work,
    try_draft,
    work_part,
)
from stream_guard.console.security.roles import Role

__all__ = ["POLICIES"]

POLICIES: Final = Page(
    "policies",
    (
        get("/policies", show_all, Role.READ_ONLY),
        get("/policies/{slug}", show_one, Role.READ_ONLY),
        post("/policies/{slug}/check", check, Role.AUTHOR, changes=False),
        post("/policies/{slug}/save", save, Role.AUTHOR),
        post("/policies/{slug}/draft", change_draft, Role.AUTHOR),
        post("/policies/{slug}/try", try_draft, Role.AUTHOR),
        post("/policies/{slug}/golden", golden, Role.AUTHOR),
        post("/policies/{slug}/gates", gates, Role.AUTHOR),
        post("/policies/{slug}/promote", promote, Role.AUTHOR),
        get("/policies/{slug}/history", show_past, Role.READ_ONLY),
        post("/policies/{slug}/rollback", rollback, Role.AUTHOR),
        get("/policies-work", show_work, Role.AUTHOR),
        post("/policies-work/stop", stop_work, Role.AUTHOR),
    ),
    {"work": work_part},
)
