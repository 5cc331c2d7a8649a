"""What is published about our topics is true, complete, and only grows."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, validators
from referencing import Registry, Resource

from stream_guard.core.errors import RecordError
from stream_guard.records.contracts import reader_schema, writer_schema
from stream_guard.records.post import PostParser
from stream_guard.records.verdict_event import VerdictEvents
from stream_guard.settings import KafkaSettings, PostSettings
from tests.contract.compatibility import breaking_changes
from tests.verdicts import make_verdict

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = ROOT / "docs" / "contracts"
SCHEMAS = {
    path.name: json.loads(path.read_text())
    for path in (ROOT / "stream_guard/records/schemas").glob("*.json")
}
REGISTRY: Any = Registry().with_resources(
    (schema["$id"], Resource.from_contents(schema)) for schema in SCHEMAS.values()
)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(SCHEMAS[name], registry=REGISTRY)


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_the_published_copy_is_that_of_the_program(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    for published, expected in (
        (CONTRACTS / name, reader_schema(name)),
        (CONTRACTS / "writer" / name, writer_schema(name)),
    ):
        assert published.exists(), "run: make contracts"
        assert json.loads(published.read_text()) == expected, "run: make contracts"


def test_nothing_else_is_published() -> None:
    assert {path.name for path in CONTRACTS.glob("*.json")} == set(SCHEMAS)
    assert {path.name for path in (CONTRACTS / "writer").glob("*.json")} == set(SCHEMAS)


def test_verdicts_in_binary_mode_are_what_the_contract_says() -> None:
    value, headers = VerdictEvents(0).encode(make_verdict(), TRACEPARENT)
    named = {name: raw.decode() for name, raw in headers}
    validator("cloudevent-binary-1.0.json").validate(named)
    validator("verdict-1.1.json").validate(orjson.loads(value))
    for name in named:
        rest = {k: v for k, v in named.items() if k != name}
        assert not validator("cloudevent-binary-1.0.json").is_valid(rest), name


def test_verdicts_in_structured_mode_are_what_the_contract_says() -> None:
    value, _ = VerdictEvents(0, "structured").encode(make_verdict(), TRACEPARENT)
    event = orjson.loads(value)
    validator("cloudevent-structured-1.0.json").validate(event)
    event["data"]["decision"] = "maybe"
    assert not validator("cloudevent-structured-1.0.json").is_valid(event)


_VALUES = st.none() | st.text(max_size=3) | st.integers(0, 10**9) | st.lists(st.none(), max_size=1)


_NAMES = ("title", "title_author", "parent_author", "earlier", "quoted", "quoted_author")
_THREADS = st.dictionaries(
    st.sampled_from(_NAMES),
    _VALUES | st.lists(_VALUES | st.fixed_dictionaries({"text": _VALUES}, optional={"author": _VALUES})),
)  # fmt: skip


@given(
    st.dictionaries(
        st.sampled_from(["id", "text", "author", "tenant", "language", "title", "parent"]), _VALUES
    ),
    st.none() | _THREADS,
)
def test_a_post_by_the_schema_is_read_whole_and_one_that_is_refused_breaks_it(
    document: dict[str, Any], thread: dict[str, Any] | None
) -> None:
    document["thread"] = thread
    valid = validator("post-1.0.json").is_valid(document)
    try:
        post = PostParser(PostSettings()).parse(orjson.dumps(document), [])
    except RecordError:
        assert not valid
    else:
        # The parser also reads other forms, which nobody should write on purpose.
        assert not (valid and post.nulled)


# AsyncAPI

ASYNCAPI = yaml.safe_load((CONTRACTS / "asyncapi.yaml").read_text())


def test_the_asyncapi_document_is_one() -> None:
    schema = json.loads((Path(__file__).parent / "data" / "asyncapi-3.0.0.json").read_text())
    checker = validators.validator_for(schema)(schema)
    checker.validate(ASYNCAPI)
    broken = copy.deepcopy(ASYNCAPI)
    broken["operations"]["readPosts"]["action"] = "drink"
    assert not checker.is_valid(broken)


def references(part: Any) -> list[str]:  # noqa: ANN401
    if isinstance(part, dict):
        own = [part["$ref"]] if "$ref" in part else []
        return own + [ref for value in part.values() for ref in references(value)]
    return []


def test_every_reference_in_the_asyncapi_document_leads_somewhere() -> None:
    found = references(ASYNCAPI)
    assert len(found) > 10
    for reference in found:
        if not reference.startswith("#/"):
            assert (CONTRACTS / reference).exists(), reference
            continue
        part = ASYNCAPI
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]


def test_every_topic_of_ours_is_a_channel_and_every_schema_is_used() -> None:
    settings = KafkaSettings()
    addresses = {channel["address"] for channel in ASYNCAPI["channels"].values()}
    topics = {settings.verdict_topic, settings.dead_letter_topic, settings.archive_topic}
    assert topics <= addresses
    used = {r for r in references(ASYNCAPI) if not r.startswith("#/")} | {"verdict-1.1.json"}
    assert used == set(SCHEMAS) - {"dsa-statement-1.0.json"}  # lines of a file, not of a topic


# Compatibility

RELEASED = sorted((CONTRACTS / "released").glob("*.json"))


def kind(name: str) -> str:
    """Return a schema's kind and major version, which its later minor versions share."""
    return name.removesuffix(".json").rpartition(".")[0]


NOW = {kind(name): schema for name, schema in SCHEMAS.items()}


def test_there_is_a_release_to_compare_with() -> None:
    assert {kind(path.name) for path in RELEASED} <= set(NOW), "a released schema is gone"
    assert RELEASED


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.name)
def test_the_schemas_only_grow(path: Path) -> None:
    assert breaking_changes(json.loads(path.read_text()), NOW[kind(path.name)]) == []


def change(path: str, value: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the schema of verdicts with one place changed; None takes it away."""
    schema: Any = copy.deepcopy(SCHEMAS["verdict-1.1.json"])
    part = schema
    *way, last = path.split("/")
    for name in way:
        part = part[name]
    if value is None:
        del part[last]
    else:
        part[last] = value
    result: dict[str, Any] = schema
    return result


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("properties/content", None),
        ("required", ["schema_version", "id"]),
        ("properties/id/type", "integer"),
        ("properties/id/pattern", "^.*$"),
        ("properties/id/pattern", None),
        ("properties/decision/enum", ["violates", "safe", "undetermined", "maybe"]),
        ("properties/content/properties/author/type", ["string", "null", "integer"]),
        ("properties/confidence/properties/value/maximum", 100),
        ("properties/schema_version/const", "2.0"),
        ("properties/policy/properties/rule_ids/items", {"type": "integer"}),
        ("$defs/count/minimum", -1),
    ],
)
def test_a_change_that_breaks_readers_is_noticed(path: str, value: Any) -> None:  # noqa: ANN401
    assert breaking_changes(SCHEMAS["verdict-1.1.json"], change(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("properties/novelty", {"type": "string"}),
        ("description", "other words"),
        ("properties/decision/enum", ["violates", "safe"]),
        ("properties/content/properties/author/type", "string"),
        ("properties/confidence/properties/value/maximum", 0.5),
    ],
)
def test_growing_is_allowed(path: str, value: Any) -> None:  # noqa: ANN401
    assert breaking_changes(SCHEMAS["verdict-1.1.json"], change(path, value)) == []
