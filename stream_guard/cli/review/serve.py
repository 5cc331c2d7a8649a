"""``stream-guard review serve``."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from stream_guard.cli.options import ConfigOption
from stream_guard.cli.review.options import DatabaseOption, open_desk
from stream_guard.cli.serving import serve_until_stopped
from stream_guard.cli.terminal import say
from stream_guard.core.errors import SettingsError
from stream_guard.settings import env_name

if TYPE_CHECKING:
    from stream_guard.cli.review.options import Desk


def serve(*, database: DatabaseOption = None, config: ConfigOption = None) -> None:
    """Serve the review queue over HTTP, until SIGTERM or SIGINT.

    Every request needs a bearer token of review.tokens_file. The API is described at /openapi.json.
    """
    from stream_guard.telemetry.logs import configure_logs

    with open_desk(config, database, offline=True) as desk:
        configure_logs(desk.settings.telemetry)
        asyncio.run(_serve(desk))


async def _serve(desk: Desk) -> None:
    from stream_guard.core.clock import SystemClock
    from stream_guard.kafka.audit_writer import AuditWriter
    from stream_guard.kafka.decision_writer import write_decision
    from stream_guard.offline.decide import section_of
    from stream_guard.offline.review.follow import catch_up, post_text
    from stream_guard.offline.review.server import Parts, ReviewServer
    from stream_guard.offline.review.tokens import Tokens
    from stream_guard.service.connections import Connections

    settings = desk.settings
    if settings.review.tokens_file is None:
        name = env_name("review", "tokens_file")
        message = (
            f"review.tokens_file ({name}) is not set; name a file with ROLE PSEUDONYM TOKEN lines"
        )
        raise SettingsError(message)
    auditing = None if settings.kafka.audit_topic is None else AuditWriter(settings.kafka)
    parts = Parts(
        desk.queue,
        desk.projection,
        Tokens(settings.review.tokens_file),
        lambda: catch_up(settings, desk.projection),
        lambda decision: write_decision(settings.kafka, decision),
        lambda item: post_text(settings, item),
        SystemClock(),
        None if auditing is None else auditing.write,
        partial(section_of, settings),
    )
    server = ReviewServer(settings.review, parts, Connections)
    try:
        await server.start()
    except OSError as error:
        message = f"review.host, review.port: cannot listen on {settings.review.host}:{settings.review.port}: {error}"
        raise SettingsError(message) from error
    say(f"review queue: http://{settings.review.host}:{server.port}")
    try:
        await serve_until_stopped(server)
    finally:
        if auditing is not None:
            await auditing.close()
