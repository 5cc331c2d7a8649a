"""Settings: where values come from, what stops a start and what it says, and what is never shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_origin

import pytest
from pydantic import BaseModel

from stream_guard.core.errors import SettingsError
from stream_guard.core.exit_codes import ExitCode
from stream_guard.settings import SecuritySettings, Settings, env_name, load_settings
from stream_guard.settings.faults import example_of

if TYPE_CHECKING:
    from pathlib import Path

HIDDEN = "hunter2-very-hidden"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.upper().startswith("STREAM_GUARD_"):
            monkeypatch.delenv(name)


def refused(config: Path | None = None) -> str:
    with pytest.raises(SettingsError) as raised:
        load_settings(config)
    assert raised.value.exit_code == ExitCode.USAGE
    return str(raised.value)


def test_the_defaults_are_valid_and_cannot_be_changed() -> None:
    settings = load_settings()
    assert settings == Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.kafka.group_id = "x"  # type: ignore[misc]


def test_names_in_the_environment() -> None:
    assert env_name("kafka", "security", "username") == "STREAM_GUARD_KAFKA__SECURITY__USERNAME"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (
            "STREAM_GUARD_KAFKO__TOPICS",
            "[]",
            ["unknown section 'kafko' (did you mean kafka?)", "kafka, post, policies"],
        ),
        ("STREAM_GUARD_TOPICS", "[]", ["unknown section 'topics'", "STREAM_GUARD_KAFKA__GROUP_ID"]),
        (
            "STREAM_GUARD_KAFKA_TOPICS",
            "[]",
            ["unknown section 'kafka_topics' (did you mean STREAM_GUARD_KAFKA__TOPICS?)"],
        ),
        ("STREAM_GUARD_BOOTSTRAP_SERVERS", "a:1", ["mean STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS?"]),
        ("STREAM_GUARD_KAFKA", "topics", ["kafka (STREAM_GUARD_KAFKA): not JSON", "='{"]),
        (
            "STREAM_GUARD_KAFKA__SECURITY",
            "protocol=SSL",
            ["kafka.security (STREAM_GUARD_KAFKA__SECURITY): not JSON", '"protocol": "SASL_SSL"'],
        ),
        ("STREAM_GUARD_KAFKA__TOPICS__0", "a", ["kafka.topics (STREAM_GUARD_KAFKA__TOPICS__0): "]),
        ("STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS", "", ["kafka.bootstrap_servers", "at least 1"]),
        ("STREAM_GUARD_ENGINE__MODEL", "", ["engine.model", "at least 1"]),
        (
            "STREAM_GUARD_BATCHING__AGE_MAX_MS",
            "2s",
            ["a number of milliseconds, without a unit; for example 20"],
        ),
        ("STREAM_GUARD_DELIVERY__DRAIN_TIMEOUT_S", "25 s", ["seconds, without a unit"]),
        ("STREAM_GUARD_DELIVERY__MODE", "exactly-once", ["(did you mean exactly_once?)"]),
        (
            "STREAM_GUARD_DELIVERY__DRAIN_TIMEOUT_S",
            "900",
            [
                "delivery.drain_timeout_s (STREAM_GUARD_DELIVERY__DRAIN_TIMEOUT_S): kafka.rebalance",
                "; set STREAM_GUARD_KAFKA__REBALANCE_TIMEOUT_MS or STREAM_GUARD_DELIVERY__DRAIN",
            ],
        ),
        (
            "STREAM_GUARD_POST__FORMAT",
            "avro",
            ["post.format (STREAM_GUARD_POST__FORMAT): registry"],
        ),
        ("stream_guard_kafko__x", "1", ["stream_guard_kafko__x", "unknown section"]),
        (
            "STREAM_GUARD_KAFKA__TOPIC",
            "[]",
            [
                "kafka.topic (STREAM_GUARD_KAFKA__TOPIC): unknown setting (did you mean topics?)",
                "topic_pattern",
            ],
        ),
        (
            "STREAM_GUARD_KAFKA__SECURITY__PASWORD",
            HIDDEN,
            ["kafka.security.pasword", "unknown setting", "password"],
        ),
        ("STREAM_GUARD_HTTP__PORT", "seventy", ["http.port", "integer", "for example 8080"]),
        ("STREAM_GUARD_HTTP__PORT", "65536", ["http.port", "65535"]),
        ("STREAM_GUARD_BATCHING__SIZE_MAX", "0", ["batching.size_max", "for example 64"]),
        ("STREAM_GUARD_ENGINE__EFFORT", "huge", ["engine.effort", "'low', 'medium' or 'high'"]),
        ("STREAM_GUARD_ENGINE__PROMPT_DATE", "today", ["engine.prompt_date", "2025-01-01"]),
        ("STREAM_GUARD_POST__TEXT", "text", ["post.text", "for example /author/country"]),
        ("STREAM_GUARD_POST__TEXT", "[]", ["post.text", "list is empty"]),
        ("STREAM_GUARD_POST__TEXT", '["/a", 1]', ["post.text", "nor a list of them"]),
        ("STREAM_GUARD_POST__TEXT", '["/a", "/~2"]', ["post.text", "'/~2' is not a JSON pointer"]),
        (
            "STREAM_GUARD_POST__TOPICS",
            '{"comments": {"txt": "/body"}}',
            [
                "post.topics.comments.txt",
                "unknown setting (did you mean text?); known here: format, id, text",
            ],
        ),
        (
            "STREAM_GUARD_POST__TOPICS",
            '{"comments": {"topics": {}}}',
            ["post.topics.comments.topics", "unknown setting"],
        ),
        (
            "STREAM_GUARD_CASCADE__LADDER",
            '[{"effort": "low", "reasoning_tokens_max": 64, "x": 1}]',
            ["cascade.ladder.0.x", "unknown setting; known here: effort"],
        ),
        (
            "STREAM_GUARD_KAFKA__TOPICS",
            "posts",
            [
                "kafka.topics (STREAM_GUARD_KAFKA__TOPICS): not JSON",
                """STREAM_GUARD_KAFKA__TOPICS='["posts"]'""",
            ],
        ),
        (
            "STREAM_GUARD_CASCADE__LADDER",
            "medium",
            ["cascade.ladder (STREAM_GUARD_CASCADE__LADDER): not JSON", '"effort": "medium"'],
        ),
        (
            "STREAM_GUARD_ENGINE__EXTRA",
            "seed=1",
            ["engine.extra (STREAM_GUARD_ENGINE__EXTRA): not JSON"],
        ),
        ("STREAM_GUARD_KAFKA__TOPICS", '{"a": 1}', ["kafka.topics", '["posts"]']),
        ("STREAM_GUARD_KAFKA__GROUP_ID", "", ["kafka.group_id", "for example stream-guard"]),
        ("STREAM_GUARD_CASCADE__TIERS", '["safeguard", "rules"]', ["cascade", "put it last"]),
        ("STREAM_GUARD_CASCADE__TIERS", '["rules", "rules"]', ["cascade", "named twice"]),
        (
            "STREAM_GUARD_CASCADE__TIERS",
            '["magic"]',
            ["cascade.tiers", '["duplicates", "safeguard"]'],
        ),
        ("STREAM_GUARD_CASCADE__TIERS", "[]", ["cascade.tiers", "at least 1 item"]),
        ("STREAM_GUARD_CASCADE__UNCERTAIN_BAND", "[0.9, 0.1]", ["cascade", "lower end first"]),
        ("STREAM_GUARD_CASCADE__UNCERTAIN_BAND", "[0.1, 1.1]", ["uncertain_band", "[0.2, 0.8]"]),
        ("STREAM_GUARD_CASCADE__LADDER", '[{"effort": "low"}]', ["cascade.ladder", '"medium"']),
        ("STREAM_GUARD_CASCADE__PRESSURE_RECOVERY_RATIO", "1", ["recovery_ratio", "0.5"]),
        ("STREAM_GUARD_CASCADE__DUPLICATES_TTL_S", "0", ["duplicates_ttl_s", "3600"]),
        ("STREAM_GUARD_TELEMETRY__TRACE_RATIO", "1.1", ["telemetry.trace_ratio", "0.01"]),
    ],
)
def test_a_bad_value_names_the_setting_and_an_example(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: list[str]
) -> None:
    monkeypatch.setenv(name, value)
    message = refused()
    for words in says:
        assert words in message
    assert HIDDEN not in message


def test_every_bad_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_GUARD_HTTP__PORT", "x")
    monkeypatch.setenv("STREAM_GUARD_ENGINE__DTYPES", "x")
    message = refused()
    assert message.count("\n") == 1
    assert "STREAM_GUARD_HTTP__PORT" in message
    assert "STREAM_GUARD_ENGINE__DTYPES" in message


def test_lists_and_tables_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_GUARD_KAFKA__TOPICS", '["a", "b"]')
    monkeypatch.setenv("STREAM_GUARD_ENGINE__EXTRA", '{"seed": 1, "deep": {"x": [true]}}')
    settings = load_settings()
    assert settings.kafka.topics == ("a", "b")
    assert settings.engine.extra == {"seed": 1, "deep": {"x": [True]}}


def test_a_place_is_a_pointer_or_a_list_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_GUARD_POST__TEXT", '["/data/selftext", "/data/body"]')
    monkeypatch.setenv("STREAM_GUARD_POST__ID", "/data/id")
    monkeypatch.setenv("STREAM_GUARD_POST__TOPICS", '{"comments": {"text": "/data/body"}}')
    post = load_settings().post
    assert (post.text, post.id) == (("/data/selftext", "/data/body"), "/data/id")
    own = post.of_topic("comments")
    assert (own.text, own.id, own.topics) == ("/data/body", "/data/id", {})
    assert post.of_topic("posts") is post


def test_the_environment_wins_over_the_file_name_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "guard.toml"
    file.write_text('[kafka]\ngroup_id = "file"\ntopics = ["file"]\n[http]\nport = 1\n')
    monkeypatch.setenv("STREAM_GUARD_KAFKA__GROUP_ID", "environment")
    settings = load_settings(file)
    assert settings.kafka.group_id == "environment"
    assert settings.kafka.topics == ("file",)
    assert settings.http.port == 1
    assert settings.kafka.client_id == "stream-guard"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\n[kafka\n", "guard.toml:2: not TOML"),
        (
            b"[kafka]\ngroup_id = a\n",
            "guard.toml:2: not TOML: Invalid value at column 12; write name",
        ),
        (b"kafka:\n  topics: [posts]\n", "guard.toml:1: not TOML"),
        (b"[Kafka]\nGroupId = 1\n", ":2: kafka.GroupId: unknown setting (did you mean group_id?)"),
        (
            b'topics = ["posts"]\n',
            ":1: topics: unknown setting (did you mean kafka.topics or post.",
        ),
        (
            b"[engine]\ngroup_id = 'a'\n",
            ":2: engine.group_id: unknown setting (did you mean kafka.",
        ),
        (b"[[kafka]]\ngroup_id = 'a'\n", ":1: kafka: Input should be a table"),
        (
            b"[[cascade.ladder]]\neffort = 'medium'\n[[cascade.ladder]]\ntop_p = 1\nefort = 'high'\n",
            ":5: cascade.ladder.1.efort: unknown setting (did you mean effort?)",
        ),
        (
            b"[policies]\npath = 3\n",
            ":2: policies.path: Input should be a path, as text; for example /",
        ),
        (b"[decisions]\nroles = 'lead'\n", '; for example ["reviewer", "lead", "system"]'),
        (b"[decisions]\nenabled = 'yep'\n", "for example false"),
        (
            b"[delivery]\ndrain_timeout_s = true\n",
            ":2: delivery.drain_timeout_s: Input should be a num",
        ),
        (b"[http]\nport = true\n", ":2: http.port: Input should be a number, not true or false"),
        (
            b"[delivery]\nmode = 'exactly_once'\ndrain_timeout_s = 900\n",
            ":3: delivery.drain_timeout_s: kafka.rebalance_timeout_ms must exceed",
        ),
        (b"[post]\nformat = 'avro'\n", ":2: post.format: registry.url is required"),
        (b'[kafka]\nclient_id = "\xff"\n', "not TOML"),
        (
            b"[kafka]\ngroupid = 1\n",
            ":2: kafka.groupid: unknown setting (did you mean group_id?)",
        ),
        (b"\n[kafkas]\n", ":2: kafkas: unknown setting (did you mean kafka?)"),
        (b"kafka = 1\n", ":1: kafka: Input should be a table"),
        (b"[cascade]\nladder = 3\n", ":2: cascade.ladder: Input should be a list"),
        (b"[engine]\nextra = 3\n", ":2: engine.extra: Input should be a table"),
        (
            b'[post.topics."a.b"]\nid = "/id"\nmarkup = "htm"\n',
            ":3: post.topics.a.b.markup: Input should be 'plain', 'html' or 'markdown'",
        ),
        (
            b"[post.topics.'a b']\nid = '/id'\n\"formt\" = 'json'\n",
            ":3: post.topics.a b.formt: unknown setting (did you mean format?)",
        ),
        (b"[kafka.security]\npassword = 7\n", "kafka.security.password"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "guard.toml"
    file.write_bytes(content)
    message = refused(file)
    assert says in message
    assert "STREAM_GUARD_" not in message
    if "not TOML" in says:
        assert str(file) in message


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "guard.toml"
    file.write_text('[kafka]\ngroup_id = "a"\n', "utf-8-sig")
    assert load_settings(file).kafka.group_id == "a"


def test_a_mistake_in_the_file_is_the_files_though_a_variable_sets_its_section(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "guard.toml"
    file.write_text("[kafka]\ngroupid = 1\n")
    monkeypatch.setenv("STREAM_GUARD_KAFKA", '{"topics": ["a"]}')
    assert refused(file).startswith(f"{file}:2: kafka.groupid: unknown setting")
    monkeypatch.setenv("STREAM_GUARD_KAFKA", '{"groupid": 1}')
    assert refused(file).startswith("kafka.groupid (STREAM_GUARD_KAFKA): unknown setting")


def test_every_list_and_table_has_an_example_that_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(model: type[BaseModel], path: tuple[str, ...]) -> None:
        for name, field in model.model_fields.items():
            kind = field.annotation
            here = (*path, name)
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                check(kind, here)
            if get_origin(kind) not in {tuple, dict}:
                continue
            example = example_of(Settings, here)
            assert example is not None, here
            with monkeypatch.context() as patch:
                patch.setenv(env_name(*here), example)
                load_settings()

    check(Settings, ())


def test_a_file_that_is_not_there_or_a_folder_is_named(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.toml")
    assert "directory" in refused(tmp_path)


# Secrets


def test_secrets_are_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    security = {
        "protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "username": "u",
        "password": HIDDEN,
        "ssl_key_password": HIDDEN + "2",
    }
    monkeypatch.setenv("STREAM_GUARD_KAFKA__SECURITY", json.dumps(security))
    settings = load_settings()
    password = settings.kafka.security.password
    assert password is not None
    assert password.get_secret_value() == HIDDEN
    shown = (
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        json.dumps(settings.model_dump(mode="json")),
        repr(settings.model_dump()),
    )
    assert not any(HIDDEN in text for text in shown)
    assert "****" in shown[2]


def test_a_contradiction_among_secrets_does_not_show_them(monkeypatch: pytest.MonkeyPatch) -> None:
    security = {"protocol": "SASL_SSL", "password": HIDDEN}
    monkeypatch.setenv("STREAM_GUARD_KAFKA__SECURITY", json.dumps(security))
    message = refused()
    assert "sasl_mechanism is required" in message
    assert HIDDEN not in message


def test_malformed_json_around_a_secret_does_not_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_GUARD_KAFKA__SECURITY", '{"password": "' + HIDDEN)
    with pytest.raises(SettingsError) as raised:
        load_settings()
    assert HIDDEN not in str(raised.value)


# Combinations


USER = {"username": "u", "password": "p"}
HOOK = {"oauth_token_hook": "my.auth:token"}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"protocol": "SSL"},
        {"protocol": "SSL", "ssl_certfile": "c", "ssl_keyfile": "k"},
        {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", **USER},
        {"protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-256", **USER},
        {"protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", **USER},
        {"protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", **HOOK},
    ],
)
def test_security_that_is_complete(values: dict[str, Any]) -> None:
    assert SecuritySettings(**values).protocol == values.get("protocol", "PLAINTEXT")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"protocol": "SASL_SSL"}, "sasl_mechanism is required"),
        ({"sasl_mechanism": "PLAIN", **USER}, "needs protocol SASL_SSL"),
        ({"protocol": "SSL", "sasl_mechanism": "PLAIN"}, "needs protocol SASL_SSL"),
        ({"protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}, "username and password"),
        (
            {"protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-256", "username": "u"},
            "username and password are required with SCRAM-SHA-256",
        ),
        ({"protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "oauth_token_hook"),
        (
            {"protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "oauth_token_hook": "a.b"},
            "oauth_token_hook",
        ),
        ({"protocol": "SASL_SSL", "sasl_mechanism": "GSSAPI"}, "SCRAM-SHA-256"),
        ({"protocol": "SSL", "ssl_certfile": "c"}, "must be set together"),
        ({"protocol": "SSL", "ssl_keyfile": "k"}, "must be set together"),
    ],
)
def test_security_that_is_not(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SecuritySettings(**values)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"KAFKA__TOPICS": '["a"]', "KAFKA__TOPIC_PATTERN": "a"}, "exclude each other"),
        (
            {"KAFKA__VERDICT_TOPIC": "a", "KAFKA__DEAD_LETTER_TOPIC": "a"},
            "dead_letter_topic must be a separate topic",
        ),
        ({"KAFKA__HEARTBEAT_INTERVAL_MS": "15001"}, "third of session_timeout_ms"),
        ({"KAFKA__TOPICS": '["stream-guard.verdicts"]'}, "read and written"),
        ({"KAFKA__TOPICS": '["stream-guard.dead-letters"]'}, "read and written"),
        ({"KAFKA__REBALANCE_TIMEOUT_MS": "29999"}, "drain_timeout_s by 5 s"),
        ({"DELIVERY__DRAIN_TIMEOUT_S": "85.1"}, "drain_timeout_s by 5 s"),
    ],
)
def test_settings_that_contradict_each_other(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], says: str
) -> None:
    for name, value in values.items():
        monkeypatch.setenv("STREAM_GUARD_" + name, value)
    assert says in refused()


def test_the_drain_may_take_all_but_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_GUARD_KAFKA__REBALANCE_TIMEOUT_MS", "30000")
    assert load_settings().delivery.drain_timeout_s == 25


def test_every_setting_says_what_it_is() -> None:
    def undescribed(schema: dict[str, Any]) -> list[str]:
        return [
            f"{model}.{name}"
            for model, part in schema["$defs"].items()
            for name, field in part["properties"].items()
            if not field.get("description", "$ref" in field and part["description"])
        ]

    assert undescribed(Settings.model_json_schema()) == []
