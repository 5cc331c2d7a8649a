"""Renders findings as text, JSON, and SARIF 2.1.0 for code review. Pure.

Source of the shape: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from stream_guard.policies.lint.findings import CODES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.policies.lint.findings import Finding

__all__ = ["to_json", "to_sarif"]

_SCHEMA: Final = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)


def to_json(findings: Sequence[Finding]) -> str:
    """Return an object with ``findings``, each with the fields of :class:`Finding`."""
    return json.dumps(
        {"findings": [asdict(finding) for finding in findings]}, ensure_ascii=False, indent=2
    )


def to_sarif(findings: Sequence[Finding], version: str) -> str:
    """Return a SARIF log of one run; ``version`` is that of Stream Guard."""
    rules = list(CODES.values())
    driver = {
        "name": "stream-guard",
        "semanticVersion": version,
        "rules": [
            {
                "id": rule.code,
                "shortDescription": {"text": rule.summary},
                "help": {"text": rule.remedy},
                "defaultConfiguration": {"level": rule.severity},
            }
            for rule in rules
        ],
    }
    indexes = {rule.code: index for index, rule in enumerate(rules)}
    log = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                # Columns count code points, as Python strings do.
                "columnKind": "unicodeCodePoints",
                "results": [_result(finding, indexes[finding.code]) for finding in findings],
            }
        ],
    }
    return json.dumps(log, ensure_ascii=False, indent=2)


def _result(finding: Finding, rule_index: int) -> dict[str, Any]:
    return {
        "ruleId": finding.code,
        "ruleIndex": rule_index,
        "level": finding.severity,
        "message": {"text": f"{finding.message}. {finding.remedy}"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(finding.file)},
                    "region": {"startLine": finding.line, "startColumn": finding.column},
                }
            }
        ],
    }
