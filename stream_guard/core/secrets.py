"""Masks secrets in what is shown: settings, logs, errors. Pure.

A secret is known by the name of its field (``hf_token``), or by its form: a password in a URL, a bearer token, a key
with a vendor's prefix, a JSON Web Token, a PEM private key.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MASK", "mask_fields", "mask_text"]

MASK: Final = "**********"
"""As pydantic shows a secret."""
_NAMES: Final = re.compile(
    r"(?:^|[_.-])(?:password|passwd|passphrase|secret|token|api_?key|access_?key|secret_?key|private_?key|"
    r"credentials?|authorization|cookie)$",
    re.IGNORECASE,
)
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_FORMS: Final = re.compile(
    r"(?P<url>[a-z][a-z0-9+.-]*://)[^\s/@'\"]+@"
    r"|(?P<query>[?&;](?:[\w-]*(?:password|secret|token|api_?key|signature|sig))=)[^\s&#'\"]+"
    r"|(?P<scheme>\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}"
    r"|\b(?:hf_|sk-|xox[abpr]-|gh[pousr]_|github_pat_|glpat-|AKIA|AIza)[\w-]{12,}"
    r"|\beyJ[\w-]{6,}\.[\w-]{8,}\.[\w-]*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    re.IGNORECASE | re.DOTALL,
)


def mask_text(text: str) -> str:
    """Return a text without what has the form of a secret."""
    return _FORMS.sub(_masked, text)


def _masked(found: re.Match[str]) -> str:
    if found["url"]:
        return f"{found['url']}{MASK}@"
    return f"{found['query'] or found['scheme'] or ''}{MASK}"


def mask_fields(document: Any) -> Any:  # noqa: ANN401 - any plain data
    """Return plain data without secrets, by the names of its fields and by the form of its texts."""
    if isinstance(document, dict):
        return _mask_mapping(document)
    if isinstance(document, list | tuple):
        return [mask_fields(each) for each in document]
    return mask_text(document) if isinstance(document, str) else document


def _mask_mapping(fields: Mapping[Any, Any]) -> dict[Any, Any]:
    return {
        name: MASK if isinstance(value, str) and value and _is_secret(name) else mask_fields(value)
        for name, value in fields.items()
    }


def _is_secret(name: object) -> bool:
    return isinstance(name, str) and _NAMES.search(_CAMEL.sub("_", name)) is not None
