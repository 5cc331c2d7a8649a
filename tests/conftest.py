"""What tests share: a real broker, and topics of their own on it."""

from __future__ import annotations

import os
import signal
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from stream_guard.testing.broker import Broker, start_broker
from tests.vocabulary import (  # noqa: F401 - fixtures
    full_model,
    full_tokenizer,
    harmony_encoding,
    random_model,
    vocabulary,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


# A busy machine must not fail a test, nor may luck: the same tests draw the same examples. Who looks for more of them
# sets HYPOTHESIS_PROFILE=random, or runs `make fuzz`.
_UNHURRIED = hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.register_profile("random", _UNHURRIED)
hypothesis_settings.register_profile("repeatable", _UNHURRIED, derandomize=True)
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# A shell starts what it puts in the background with SIGINT ignored. Processes that tests start would inherit that, and
# no test could interrupt them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test may use an engine that somebody keeps warm on this machine.
os.environ["STREAM_GUARD_STUDIO__SOCKET"] = "/nonexistent/studio.sock"


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """One real broker for the whole run; a missing one is a failure that says why, never a skip."""
    with start_broker(prefer_docker=True) as started:
        yield started


@pytest.fixture
def three_brokers() -> Iterator[Broker]:
    """Three brokers of the test's own, each of which it may kill; replication 3, 2 in sync at least."""
    with start_broker(3) as started:
        yield started


@pytest.fixture
def new_topic(broker: Broker) -> Callable[..., str]:
    """Return a function that makes a topic with a name of its own."""

    def make(
        prefix: str = "topic", partitions: int = 2, configs: dict[str, str] | None = None
    ) -> str:
        name = f"{prefix}-{uuid.uuid4().hex[:12]}"
        broker.create_topics(name, partitions=partitions, configs=configs)
        return name

    return make


@pytest.fixture(autouse=True)
def logs_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no command that a test calls keep its loggers: a later test could not capture what they log."""
    configure = structlog.configure

    def without_keeping(**options: Any) -> None:  # noqa: ANN401 - as structlog declares them
        configure(**options | {"cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", without_keeping)
    yield
    structlog.reset_defaults()
