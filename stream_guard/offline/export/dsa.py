"""Turns violating verdicts into statements of reasons for the EU's DSA Transparency Database. Pure.

Source of fields and rules: https://transparency.dsa.ec.europa.eu/page/api-documentation, as in the schema
``dsa-statement-1.0.json``. A mapping file adds what a verdict does not contain: the database's category for each
category of a policy, the restriction, and its legal ground. A statement contains text of a post or a person's id
only where the mapping asks for it. No field is guessed. Every violating verdict yields a statement or an error.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, Field

from stream_guard.policies.yaml_document import read_yaml
from stream_guard.records.contracts import writer_schema
from stream_guard.records.verdict_changes import HUMAN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_guard.policies.yaml_document import Document

_Fields = dict[str, Any]
EU: Final = (
    *(
        "AT",
        "BE",
        "BG",
        "CY",
        "CZ",
        "DE",
        "DK",
        "EE",
        "ES",
        "FI",
        "FR",
        "GR",
        "HR",
        "HU",
        "IE",
        "IT",
        "LT",
    ),
    *("LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK"),
)
EEA: Final = tuple(sorted((*EU, "IS", "LI", "NO")))
_SCOPES: Final = {"EU": EU, "EEA": EEA}
_MADE: Final = frozenset({"puid", "content_date", "application_date"})
_FACTS: Final = (
    "The content was checked by automated means against the platform's policy {policy}, version {version}, and was "
    "found to violate it{rules}. Decided by: {tier}, {model}."
)
_EXPLANATION: Final = "The content falls under {category} of the platform's policy {policy}{rules}."
_DEFAULTS: Final = {"decision_facts": _FACTS, "incompatible_content_explanation": _EXPLANATION}
_FACTS_OF_A_PERSON: Final = (
    "The content was checked by automated means against the platform's policy {policy}, version {version}. A person "
    "reviewed it and found it to violate that policy{rules}."
)
_FULLY: Final = "AUTOMATED_DECISION_FULLY"
_PARTIALLY: Final = "AUTOMATED_DECISION_PARTIALLY"


class UnmappableError(ValueError):
    """A verdict cannot become a statement; the message says why."""


class PolicyMapping(BaseModel):
    """The mapping of one policy: fields of all its statements, and fields by category.

    ``no_category`` is for verdicts without a category.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    fields: _Fields = Field(default_factory=dict)
    categories: dict[str, _Fields] = Field(default_factory=dict)
    no_category: _Fields | None = None


class MappingFile(BaseModel):
    """A mapping file.

    Attributes:
        defaults: fields of every statement.
        actions: fields by the verdict's action: the restriction of the post. ``null`` where the post was
            not restricted, so that no statement is due.
        policies: by id.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    defaults: _Fields = Field(default_factory=dict)
    actions: dict[str, _Fields | None]
    policies: dict[str, PolicyMapping]


def statement_schema() -> dict[str, Any]:
    """Return the JSON Schema of a statement, which this package contains."""
    return writer_schema("dsa-statement-1.0.json")


class Statements:
    """Makes statements from verdicts.

    Args:
        content: bytes of the mapping file.
        source: name of the mapping file, for messages.

    Raises:
        PolicyError: the file does not fit its model, or it names a field or a value that the database does not
            have. The message names the line.
    """

    def __init__(self, content: bytes, source: str) -> None:
        schema = statement_schema()
        self._properties = schema["properties"]
        self._validator = Draft202012Validator(schema)
        self._languages = frozenset(self._properties["content_language"]["enum"])
        document = read_yaml(content, source)
        self._mapping = document.check(MappingFile)
        for path, fields in self._all_fields():
            self._check(document, path, fields)

    def _all_fields(self) -> Iterator[tuple[tuple[str, ...], _Fields]]:
        mapping = self._mapping
        yield ("defaults",), mapping.defaults
        for action, fields in mapping.actions.items():
            yield ("actions", action), fields or {}
        for name, policy in mapping.policies.items():
            yield ("policies", name, "fields"), policy.fields
            yield ("policies", name, "no_category"), policy.no_category or {}
            for code, fields in policy.categories.items():
                yield ("policies", name, "categories", code), fields

    def _check(self, document: Document, path: tuple[str, ...], fields: _Fields) -> None:
        for name, given in fields.items():
            place = (*path, name)
            if name in _MADE:
                raise document.error(place, "this field comes from the verdict; remove it")
            if name not in self._properties:
                known = ", ".join(sorted(self._properties.keys() - _MADE))
                raise document.error(place, f"not a field of a statement; the fields are: {known}")
            value = _plain(name, given)
            for error in Draft202012Validator(self._properties[name]).iter_errors(value):
                raise document.error(
                    place, f"{error.message}; see the schema dsa-statement-1.0.json"
                )

    def make(self, verdict: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the statement for a violating verdict; None where the mapping says that none is due.

        Raises:
            UnmappableError: the mapping is incomplete, or the statement does not fit the schema.
        """
        fields = self._fields(verdict)
        if fields is None:
            return None
        words = _words(verdict)
        statement = {name: _fill(_plain(name, value), words) for name, value in fields.items()}
        statement["puid"] = verdict["id"]
        statement["content_date"] = _day(_content_ms(verdict))
        statement["application_date"] = _day(verdict["timing"]["published"])
        language = (verdict["content"]["language"] or "").partition("-")[0].upper()
        if language in self._languages:
            statement.setdefault("content_language", language)
        faults = sorted(self._validator.iter_errors(statement), key=lambda error: list(error.path))
        if faults:
            described = "; ".join(
                f"{'.'.join(map(str, f.path)) or 'statement'}: {f.message}" for f in faults
            )
            raise UnmappableError(described[:1_000])
        return statement

    def _fields(self, verdict: Mapping[str, Any]) -> _Fields | None:
        policy, action = verdict["policy"], verdict["action"]
        of_policy = self._mapping.policies.get(policy["id"])
        if of_policy is None:
            raise UnmappableError(
                f"policies: no entry {policy['id']!r}; add it, and map its categories"
            )
        if action not in self._mapping.actions:
            raise UnmappableError(
                f"actions: no entry {action!r}; add the restriction, or null where there was none"
            )
        done = self._mapping.actions[action]
        if done is None:
            return None
        code = policy["category"]
        own = of_policy.no_category if code is None else of_policy.categories.get(code)
        if own is None:
            place = f"policies.{policy['id']}"
            lacks = "no_category" if code is None else f"categories.{code}"
            raise UnmappableError(
                f"{place}: no entry {lacks}; map it to a category of the database"
            )
        merged = {**_DEFAULTS, **self._mapping.defaults, **done, **of_policy.fields, **own}
        if verdict["provenance"]["tier"] == HUMAN:
            if merged["decision_facts"] == _FACTS:
                merged["decision_facts"] = _FACTS_OF_A_PERSON
            if merged.get("automated_decision") == _FULLY:
                merged["automated_decision"] = _PARTIALLY
        if merged.get("decision_ground") != "DECISION_GROUND_INCOMPATIBLE_CONTENT":
            merged = {k: v for k, v in merged.items() if not k.startswith("incompatible_content_")}
        return merged


def _content_ms(verdict: Mapping[str, Any]) -> int:
    """Return when the content was made, Unix time in ms. A person's verdict has the decision's time as its event's."""
    record_ms: int = verdict["source"]["timestamp_ms"]
    if verdict["provenance"]["tier"] == HUMAN and record_ms >= 0:
        return record_ms
    event_ms: int = verdict["timing"]["event"]
    return event_ms


def _plain(name: str, value: Any) -> Any:  # noqa: ANN401 - any YAML value
    """Return a value in the database's form: YAML reads a bare Yes as true, and EU means all its countries."""
    if isinstance(value, bool):
        return "Yes" if value else "No"
    if name == "territorial_scope":
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list):
            countries = ["NO" if one is False else one for one in value]
            return [c for one in countries for c in _SCOPES.get(str(one), (one,))]
    return value


def _words(verdict: Mapping[str, Any]) -> dict[str, str]:
    """Return the values for the names in braces that a mapping's texts may contain."""
    policy, provenance = verdict["policy"], verdict["provenance"]
    rules = ", ".join(policy["rule_ids"])
    return {
        "{policy}": policy["id"],
        "{version}": policy["version"],
        "{category}": policy["category"] or "no category",
        "{rule_ids}": rules,
        "{rules}": f" (rules {rules})" if rules else "",
        "{rationale}": policy["rationale"] or "",
        "{tier}": provenance["tier"],
        "{model}": provenance["model"],
    }


def _fill(value: Any, words: Mapping[str, str]) -> Any:  # noqa: ANN401 - any JSON value
    if not isinstance(value, str):
        return value
    # One pass, because an inserted value may contain braces.
    parts = []
    while value:
        at, name = min(
            ((i, w) for w in words if (i := value.find(w)) >= 0), default=(len(value), "")
        )
        parts += [value[:at], words.get(name, "")]
        value = value[at + len(name) :]
    return "".join(parts)


def _day(unix_ms: int) -> str:
    try:
        return datetime.fromtimestamp(unix_ms / 1_000, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError) as error:
        raise UnmappableError(
            f"the verdict's time {unix_ms} (ms since 1970) is out of range"
        ) from error
