"""Secrets are masked by the name of their field and by their form; everything else stays readable."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest
import structlog
from typer.testing import CliRunner

from stream_guard.cli.main import app
from stream_guard.cli.terminal import say_error
from stream_guard.core.secrets import MASK, mask_fields, mask_text
from stream_guard.settings import TelemetrySettings
from stream_guard.telemetry.logs import configure_logs

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "s3cr3t-Value-0123456789"  # noqa: S105 - made up; no output may hold it


@pytest.mark.parametrize(
    "name",
    [
        "hf_token",
        "password",
        "ssl_key_password",
        "apiKey",
        "API_KEY",
        "client-secret",
        "Authorization",
    ],
)
def test_a_field_with_the_name_of_a_secret_is_masked_at_any_depth(name: str) -> None:
    assert mask_fields({"a": [{name: SECRET}]}) == {"a": [{name: MASK}]}


def test_names_that_only_look_alike_are_shown() -> None:
    shown = {
        "reasoning_tokens_max": 96,
        "oauth_token_hook": "my_auth:token",
        "tokenizer": "a/b",
        "ssl_keyfile": "/etc/key.pem",
        "key": "posts-1",
        "token": None,
        "password": "",
    }
    assert mask_fields(shown) == shown


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"http://user:{SECRET}@otel:4317/v1", f"http://{MASK}@otel:4317/v1"),
        (f"https://{SECRET}@host", f"https://{MASK}@host"),
        (f"https://h/p?x=1&api_key={SECRET}&y=2", f"https://h/p?x=1&api_key={MASK}&y=2"),
        (f"Authorization: Bearer {SECRET}", f"Authorization: Bearer {MASK}"),
        (f"hf_{SECRET.replace('-', '')} was refused", f"{MASK} was refused"),
        (f"eyJhbGciOi.{SECRET}.{SECRET}", MASK),
        (f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----", MASK),
        ("amqp at http://otel:4317/v1?x=1", "amqp at http://otel:4317/v1?x=1"),
        ("user@example.org wrote", "user@example.org wrote"),
    ],
)
def test_a_text_with_the_form_of_a_secret_is_masked(text: str, masked: str) -> None:
    assert mask_text(text) == masked


def test_config_shows_no_secret_of_the_engine_or_the_exporter() -> None:
    settings = {
        "STREAM_GUARD_ENGINE__EXTRA": json.dumps({"hf_token": SECRET, "seed": 3}),
        "STREAM_GUARD_TELEMETRY__OTLP_ENDPOINT": f"http://user:{SECRET}@otel:4317",
    }
    shown = CliRunner().invoke(app, ["config"], env=settings).stdout
    assert SECRET not in shown
    document = json.loads(shown)
    assert document["engine"]["extra"] == {"hf_token": MASK, "seed": 3}
    assert document["telemetry"]["otlp_endpoint"] == f"http://{MASK}@otel:4317"


def test_an_error_shows_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    say_error(f"cannot reach http://user:{SECRET}@otel:4317")
    assert capsys.readouterr().err == f"stream-guard: cannot reach http://{MASK}@otel:4317\n"


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize("form", ["json", "console"])
def test_a_log_line_shows_no_secret_and_steers_no_terminal(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(TelemetrySettings(log_format=form))  # type: ignore[arg-type] # both are known
    url = f"http://user:{SECRET}@otel:4317"
    structlog.get_logger().warning("export_failed", url=url, hf_token=SECRET, id="\x1b[31m\u202e")
    logging.getLogger("other").warning("cannot reach %s", url)
    written = capsys.readouterr().err
    assert written.count("otel:4317") == 2
    assert SECRET not in written
    assert "\x1b[31m" not in written
    if form == "console":
        assert "\u202e" not in written
