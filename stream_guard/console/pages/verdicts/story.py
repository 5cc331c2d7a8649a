"""One verdict as a story: the post, what decided, how, and what came after."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog
from aiohttp import web

from stream_guard.console.pages.policies.working import WORK
from stream_guard.console.workshop.folder import load_set
from stream_guard.console.workshop.jobs import again_job
from stream_guard.core.errors import BrokerError, PolicyError, StreamGuardError, UnknownItemError
from stream_guard.kafka.archive import require_archive
from stream_guard.offline.audit.replay import read_entries
from stream_guard.policies.routing import RouteFacts
from stream_guard.policies.section import section_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.client.verdicts import Verdict
    from stream_guard.console.ask import Ask
    from stream_guard.console.sources.verdict_search import Found, Searched
    from stream_guard.console.sources.verdicts import JudgedPost
    from stream_guard.policies.policy import Policy, PolicySet

__all__ = ["judge_again", "show_one", "show_text", "show_why"]

_DIGITS_MAX: Final = 18
_ARCHIVE_TIMEOUT_S: Final = 5.0
_log = structlog.get_logger(__name__)


class _Why(NamedTuple):
    """Why these policies judge the post now: their ids with the kind of route, and the reasons."""

    routed: Sequence[tuple[str, str]]
    reasons: Sequence[str]


async def show_one(ask: Ask) -> web.Response:
    """Show a verdict."""
    return await _story(ask, await _found(ask))


async def show_text(ask: Ask) -> web.Response:
    """Show it with the text of its post, for people who work with texts."""
    if not ask.may_read_texts:
        raise web.HTTPForbidden
    found = await _found(ask)
    judged = await ask.sources.verdicts.judged(found.verdict)
    _log.info("console_post_shown", who=ask.who, role=str(ask.role), verdict=found.verdict.id)
    return await _story(ask, found, asked=True, judged=judged)


async def show_why(ask: Ask) -> web.Response:
    """Show it with the reason why these policies judge such a post now, and not the others."""
    found = await _found(ask)
    judged = await ask.sources.verdicts.judged(found.verdict)
    if judged is None:
        return await _story(ask, found, problem=ask.text("verdicts.no_post"))
    policies = await asyncio.to_thread(load_set, ask.parts.settings)
    return await _story(ask, found, why=_why(policies, judged))


async def judge_again(ask: Ask) -> web.Response:
    """Judge the post again, by the live version of its policy and by another policy."""
    found = await _found(ask)
    bench = ask.sources.bench
    policies = (await asyncio.to_thread(load_set, ask.parts.settings)).policies
    now = policies.get(found.verdict.policy.id)
    other = policies.get(await ask.field("other"))
    if now is None:
        raise UnknownItemError(ask.text("verdicts.policy_gone"))
    judged = await ask.sources.verdicts.judged(found.verdict)
    if judged is None:
        return await _story(ask, found, problem=ask.text("verdicts.no_post"), status=422)
    if other is now:
        other = None
    link = _link(ask, found)
    job = again_job(ask.parts.settings, found.verdict, link, judged.post, (now, other))
    if bench.begin(ask.who, now.id, "again", job) is None:
        running = bench.running
        problem = ask.text("policies.busy", who=running.who if running else "")
        return await _story(ask, found, problem=problem, status=409)
    return ask.go(WORK)


async def _found(ask: Ask) -> Found:
    place = ask.request.match_info
    numbers = place["partition"], place["offset"]
    if not all(
        each.isascii() and each.isdecimal() and len(each) <= _DIGITS_MAX for each in numbers
    ):
        raise web.HTTPNotFound
    partition, offset = map(int, numbers)
    return await ask.sources.verdicts.find(place["topic"], partition, offset)


def _link(ask: Ask, found: Found) -> str:
    # The word of the topic was found among the known ones.
    return f"/verdicts/{ask.request.match_info['topic']}/{found.partition}/{found.offset}"


async def _story(
    ask: Ask,
    found: Found,
    *,
    asked: bool = False,
    judged: JudgedPost | None = None,
    why: _Why | None = None,
    problem: str = "",
    status: int = 200,
) -> web.Response:
    verdict = found.verdict
    later, later_problem = await _later(ask, found)
    policy, policies, policy_problem = await _policy(ask, verdict)
    console = ask.parts.settings.console
    traced = console.trace_url is not None and found.trace_id is not None
    section = None
    if policy is not None and verdict.policy.category is not None:
        section = section_text(policy, verdict.policy.category)
    return ask.render(
        "verdicts/story.html.j2",
        status=status,
        found=found,
        verdict=verdict,
        here=_link(ask, found),
        shown_topic=ask.request.match_info["topic"],
        asked=asked,
        judged=judged,
        may_read=ask.may_read_texts,
        why=why,
        problem=problem,
        later=later,
        later_problem=later_problem,
        policy=policy,
        policy_problem=policy_problem,
        section=section,
        others=[name for name in policies if name != verdict.policy.id],
        is_live=verdict.policy.id in policies,
        trace=(console.trace_url or "").replace("{trace_id}", found.trace_id or "")
        if traced
        else None,
    )


async def _later(ask: Ask, found: Found) -> tuple[Searched | None, str]:
    try:
        return await ask.sources.verdicts.later(found), ""
    except StreamGuardError as error:
        return None, str(error)


async def _policy(ask: Ask, verdict: Verdict) -> tuple[Policy | None, dict[str, Any], str]:
    """Return the version that judged, all live policies by id, and why that version cannot be had."""
    settings = ask.parts.settings
    try:
        live = dict((await asyncio.to_thread(load_set, settings)).policies)
    except PolicyError as error:
        return None, {}, str(error)
    now = live.get(verdict.policy.id)
    if now is not None and now.sha256 == verdict.policy.sha256:
        return now, live, ""
    try:
        async with asyncio.timeout(_ARCHIVE_TIMEOUT_S):
            kept = await require_archive(settings).load(frozenset({verdict.policy.sha256}))
            entries = read_entries(kept, verdict.model_dump(), settings.policies.archive)
            return await asyncio.to_thread(entries[-1].policy), live, ""
    except TimeoutError:
        return None, live, str(BrokerError("the archive of policies does not answer"))
    except StreamGuardError as error:
        return None, live, str(error)


def _why(policies: PolicySet, judged: JudgedPost) -> _Why:
    facts = RouteFacts.of(judged.record.topic, judged.record.headers, judged.document, judged.post)
    try:
        routed = [(each.policy.id, each.mode) for each in policies.route_post(facts)]
        return _Why(routed, list(policies.routing.explain(facts)))
    except PolicyError as error:
        return _Why((), (str(error),))
