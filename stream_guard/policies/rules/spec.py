"""The model of ``rules.yaml``: keys, limits and the files that it names. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    model_validator,
)

from stream_guard.core.errors import PolicyError
from stream_guard.policies.metadata import file_name, is_file_name
from stream_guard.policies.yaml_document import read_yaml

__all__ = [
    "RULES_BYTES_MAX",
    "RULES_FILE",
    "RULES_MAX",
    "MatchMeta",
    "RuleMeta",
    "RulesMeta",
    "named_files",
]

RULES_FILE: Final = "rules.yaml"
RULES_BYTES_MAX: Final = 262_144
"""The largest ``rules.yaml``, in bytes; long lists belong in files of terms."""
RULES_MAX: Final = 500
"""Of one policy."""
_STRICT: Final = ConfigDict(extra="forbid", strict=True, frozen=True)
_FILE_KEYS: Final = ("terms_files", "hashes_files")

_FileName = Annotated[StrictStr, AfterValidator(file_name)]
_Language = Annotated[StrictStr, Field(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")]


class MatchMeta(BaseModel):
    """What to look for; one hit is enough."""

    model_config = _STRICT

    patterns: list[StrictStr] = Field(default_factory=list)
    terms: list[StrictStr] = Field(default_factory=list)
    terms_files: list[_FileName] = Field(default_factory=list)
    hashes_files: list[_FileName] = Field(default_factory=list)
    whole_words: StrictBool = True

    @model_validator(mode="after")
    def _something(self) -> MatchMeta:
        if not (self.patterns or self.terms or self.terms_files or self.hashes_files):
            message = "has nothing to look for; add patterns, terms, terms_files or hashes_files"
            raise ValueError(message)
        return self


class RuleMeta(MatchMeta):
    """One rule.

    Attributes:
        id: unique in the file; verdicts name it.
        outcome: the meaning of a hit.
        category, rule_ids: of the policy, for the verdict.
        languages: BCP 47 tags; ``de`` includes ``de-AT``. Empty for every post.
        raw: match the original text, case-sensitively.
        exceptions: their hits are removed from the text first.
    """

    id: Annotated[StrictStr, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
    outcome: Literal["violates", "safe", "escalate"]
    category: StrictStr | None = None
    rule_ids: list[StrictStr] = Field(default_factory=list)
    languages: list[_Language] = Field(default_factory=list)
    raw: StrictBool = False
    exceptions: MatchMeta | None = Field(default=None, alias="except")


class RulesMeta(BaseModel):
    """A ``rules.yaml``."""

    model_config = _STRICT

    rules: Annotated[list[RuleMeta], Field(min_length=1, max_length=RULES_MAX)]


@lru_cache(maxsize=32)  # a reload reads each file twice
def named_files(content: bytes) -> tuple[str, ...]:
    """Return the sorted names of the files that a ``rules.yaml`` names.

    Invalid content is ignored here; :func:`read_rules` rejects it.
    """
    try:
        value = read_yaml(content, RULES_FILE).value
    except PolicyError:
        return ()
    rules = _under(value, "rules")
    if not isinstance(rules, list):
        return ()
    parts = [*rules, *(_under(rule, "except") for rule in rules)]
    listed = [
        names
        for part in parts
        for key in _FILE_KEYS
        if isinstance(names := _under(part, key), list)
    ]
    return tuple(sorted({name for names in listed for name in names if is_file_name(name)}))


def _under(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, dict) else None
