"""OpenID Connect without a network: the request to the issuer, and what its ID token says. By Authlib and joserfc.

Importing this module needs the extra ``console``.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jws, jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import KeySet

from stream_guard.console.security.roles import Role
from stream_guard.core.json_pointer import JsonPointer
from stream_guard.offline.review.tokens import Person

if TYPE_CHECKING:
    from stream_guard.console.security.pending import Pending
    from stream_guard.settings import OidcSettings

__all__ = [
    "ALGORITHMS",
    "Refusal",
    "SignInRefusedError",
    "key_id",
    "person_of",
    "read_keys",
    "request_url",
]

ALGORITHMS: Final = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "Ed25519",
)
"""Signatures by a key that the issuer alone has. None is ``none``, and none is made with a secret that others know."""
_LEEWAY_S: Final = 60
"""By how much the issuer's clock may differ."""
_PSEUDONYM: Final = re.compile(r"[\w.@:|/+-]{1,128}")


class Refusal(StrEnum):
    """Why somebody is not signed in; ``sign_in.NAME`` of the catalogue says it."""

    STATE = "state"
    ISSUER = "issuer_refused"
    AWAY = "issuer_away"
    TOKEN = "token_invalid"  # noqa: S105 - a key of the catalogue
    NO_ROLE = "no_role"


class SignInRefusedError(Exception):
    """Somebody is not signed in.

    Attributes:
        why: the reason.
        because: the other side's words; untrusted text.
    """

    def __init__(self, why: Refusal, because: str = "") -> None:
        super().__init__(why, because)
        self.why = why
        self.because = because


def request_url(endpoint: str, settings: OidcSettings, pending: Pending, state: str) -> str:
    """Return the address at the issuer that a person's browser opens to sign in."""
    url: str = prepare_grant_uri(
        endpoint,
        settings.client_id,
        "code",
        redirect_uri=pending.redirect_url,
        scope=list(settings.scopes),
        state=state,
        nonce=pending.nonce,
        code_challenge=create_s256_code_challenge(pending.verifier),
        code_challenge_method="S256",
    )
    return url


def read_keys(document: Any) -> KeySet:  # noqa: ANN401 - JSON
    """Return an issuer's keys, without those of kinds that we do not know.

    Raises:
        ValueError: there is no key that could have signed an ID token.
    """
    keys = document.get("keys") if isinstance(document, dict) else None
    found = []
    for each in keys if isinstance(keys, list) else []:
        # A symmetric key that is published is no secret.
        if isinstance(each, dict) and each.get("kty") in {"RSA", "EC", "OKP"}:
            try:
                found += KeySet.import_key_set({"keys": [each]}).keys
            except (JoseError, ValueError, TypeError, KeyError):
                continue
    if not found:
        raise ValueError("the issuer publishes no key that could have signed an ID token")
    return KeySet(found)


def key_id(token: str) -> str | None:
    """Return the name of the key that is said to have signed a token; None where it names none.

    Raises:
        SignInRefusedError: it is no token.
    """
    try:
        found = jws.extract_compact(token.encode()).headers().get("kid")
    except (JoseError, ValueError, TypeError) as error:
        raise SignInRefusedError(Refusal.TOKEN, _words(error)) from error
    return found if isinstance(found, str) else None


def person_of(token: str, keys: KeySet, settings: OidcSettings, nonce: str, now_s: int) -> Person:
    """Return who an ID token says that somebody is, and the person's role here.

    Args:
        token: as the issuer sent it.
        keys: the issuer's.
        settings: what is expected.
        nonce: of the request that this answers.
        now_s: Unix time.

    Raises:
        SignInRefusedError: the token is not valid, or gives no role.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)
            decoded = jwt.decode(token, keys, algorithms=ALGORITHMS)
        claims = CodeIDToken(
            decoded.claims,
            decoded.header,
            options={
                "iss": {"essential": True, "value": settings.issuer},
                "aud": {"essential": True, "value": settings.client_id},
            },
            params={"nonce": nonce, "client_id": settings.client_id},
        )
        claims.validate(now=now_s, leeway=_LEEWAY_S)
    except (JoseError, ValueError, TypeError) as error:
        raise SignInRefusedError(Refusal.TOKEN, _words(error)) from error
    return Person(_pseudonym(claims, settings), _role(claims, settings))


def _role(claims: dict[str, Any], settings: OidcSettings) -> Role:
    held = JsonPointer(settings.role_claim).find(claims)
    values = held if isinstance(held, list) else [held]
    found = {Role(role) for value, role in settings.roles.items() if value in values}
    if not found:
        raise SignInRefusedError(Refusal.NO_ROLE)
    # Not by the order of the settings: Helm sorts a table by its keys.
    return max(found, key=list(Role).index)


def _pseudonym(claims: dict[str, Any], settings: OidcSettings) -> str:
    name = JsonPointer(settings.name_claim).find(claims)
    if isinstance(name, str) and _PSEUDONYM.fullmatch(name):
        return name
    digest = hashlib.sha256(f"{claims['iss']}\n{claims['sub']}".encode("utf-8", "surrogatepass"))
    return f"person-{digest.hexdigest()[:16]}"


def _words(error: Exception) -> str:
    return getattr(error, "description", "") or str(error) or type(error).__name__
