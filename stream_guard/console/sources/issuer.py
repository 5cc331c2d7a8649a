"""The issuer of OpenID Connect: its discovery document and its keys, read again and again, and codes for tokens.

Every answer has a deadline and a size. While the issuer is away, the page to sign in says so, and tokens still work.
"""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import aiohttp
import orjson
from pydantic import BaseModel, ValidationError, field_validator

from stream_guard.console.sources.state import Health, SourceWatch
from stream_guard.core.errors import SettingsError
from stream_guard.settings.console import is_safe_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from joserfc.jwk import KeySet

    from stream_guard.console.security.pending import Pending
    from stream_guard.console.sources.state import SourceState
    from stream_guard.core.clock import Clock
    from stream_guard.offline.review.tokens import Person
    from stream_guard.settings import OidcSettings

__all__ = ["Issuer"]

_ANSWER_BYTES_MAX: Final = 1 << 20
_READ_INTERVAL_S: Final = 300.0
_RETRY_INTERVAL_S: Final = 5.0
_KEYS_INTERVAL_S: Final = 10.0
"""A token that names an unknown key has the keys read again, and no more often than this."""


class _Metadata(BaseModel):
    """What the discovery document must have."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: list[str] = ["client_secret_basic"]
    authorization_response_iss_parameter_supported: bool = False

    @field_validator("authorization_endpoint", "token_endpoint", "jwks_uri")
    @classmethod
    def _safe(cls, value: str) -> str:
        if not is_safe_address(value):
            raise ValueError("not an address with https://")
        return value


class Issuer:
    """The issuer.

    Args:
        settings: where it is, and who we are there.
        clock: the time.

    Attributes:
        configured: whether there is one.

    Raises:
        SettingsError: there is one, and the extra ``console`` is not installed.
    """

    def __init__(self, settings: OidcSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._watch = SourceWatch("issuer", clock)
        self._metadata: _Metadata | None = None
        self._keys: KeySet | None = None
        self._keys_read_s = 0.0
        self.configured = settings.issuer is not None
        if self.configured and (find_spec("authlib") is None or find_spec("joserfc") is None):
            raise SettingsError(
                "console.oidc.issuer is set, and the package that it needs is missing; "
                "run: pip install 'stream-guard[console]'"
            )

    @property
    def state(self) -> SourceState:
        """How it is now."""
        return self._watch.state

    async def run(self) -> None:
        """Read its documents until cancelled."""
        while self.configured:
            try:
                await self._read()
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                self._watch.away(_words(error))
            else:
                self._watch.fresh()
            fresh = self.state.health is Health.FRESH
            await asyncio.sleep(_READ_INTERVAL_S if fresh else _RETRY_INTERVAL_S)
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Do nothing: each request has a connection of its own."""

    def request_url(self, pending: Pending, state: str) -> str:
        """Return the address at the issuer that the person's browser opens. Raises SignInRefusedError."""
        from stream_guard.console.security.openid import request_url

        return request_url(self._known().authorization_endpoint, self._settings, pending, state)

    async def person(self, pending: Pending, code: str, issuer: str | None) -> Person:
        """Return who a code stands for.

        Args:
            pending: the sign-in that the code answers.
            code: as the browser brought it.
            issuer: who made the code, if the browser said so.

        Raises:
            SignInRefusedError: the issuer is away or refuses, its token is not valid, or the person has no role.
        """
        from stream_guard.console.security.openid import Refusal, SignInRefusedError, person_of

        metadata = self._known()
        said = issuer is not None or metadata.authorization_response_iss_parameter_supported
        if said and issuer != self._settings.issuer:
            raise SignInRefusedError(Refusal.TOKEN, "the answer names another issuer")
        try:
            token = await self._token(metadata, pending, code)
            keys = await self._keys_for(token, metadata)
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            raise SignInRefusedError(Refusal.AWAY, _words(error)) from error
        now_s = self._clock.wall_ns() // 1_000_000_000
        return person_of(token, keys, self._settings, pending.nonce, now_s)

    def _known(self) -> _Metadata:
        from stream_guard.console.security.openid import Refusal, SignInRefusedError

        if self._metadata is None:
            raise SignInRefusedError(Refusal.AWAY, self.state.because)
        return self._metadata

    async def _read(self) -> None:
        """Read the discovery document and the keys. Raises ClientError, TimeoutError and ValueError."""
        assert self._settings.issuer is not None, "configured"
        url = self._settings.issuer.rstrip("/") + "/.well-known/openid-configuration"
        _, document = await self._ask("GET", url)
        try:
            metadata = _Metadata.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{url}: {where}: {first['msg']}") from error
        if metadata.issuer != self._settings.issuer:
            raise ValueError(
                f"{url} names the issuer {metadata.issuer}; console.oidc.issuer must be the same text"
            )
        await self._read_keys(metadata)
        self._metadata = metadata

    async def _read_keys(self, metadata: _Metadata) -> KeySet:
        from stream_guard.console.security.openid import read_keys

        self._keys_read_s = self._clock.monotonic_s()
        _, document = await self._ask("GET", metadata.jwks_uri)
        self._keys = read_keys(document)
        return self._keys

    async def _keys_for(self, token: str, metadata: _Metadata) -> KeySet:
        """Return the keys, read again if a token names one that is new."""
        from stream_guard.console.security.openid import key_id

        assert self._keys is not None, "read with the metadata"
        named = key_id(token)
        known = {key.kid for key in self._keys.keys}
        waited_s = self._clock.monotonic_s() - self._keys_read_s
        if named is None or named in known or waited_s < _KEYS_INTERVAL_S:
            return self._keys
        return await self._read_keys(metadata)

    async def _token(self, metadata: _Metadata, pending: Pending, code: str) -> str:
        """Return the ID token for a code. Raises as :meth:`person`, and the errors of aiohttp and files."""
        from stream_guard.console.security.openid import Refusal, SignInRefusedError

        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": pending.redirect_url,
            "code_verifier": pending.verifier,
        }
        headers: dict[str, str] = {}
        client, secret_file = self._settings.client_id, self._settings.client_secret_file
        if secret_file is None:
            form["client_id"] = client
        else:
            secret = (await asyncio.to_thread(secret_file.read_text, "utf-8")).strip()
            if "client_secret_basic" in metadata.token_endpoint_auth_methods_supported:
                # RFC 6749 encodes both before they are joined.
                pair = (quote(client, safe=""), quote(secret, safe=""))
                headers["Authorization"] = aiohttp.encode_basic_auth(*pair)
            else:
                form |= {"client_id": client, "client_secret": secret}
        status, answer = await self._ask("POST", metadata.token_endpoint, form, headers)
        if status != 200:  # noqa: PLR2004 - OK
            words = [str(answer.get(name, "")) for name in ("error", "error_description")]
            raise SignInRefusedError(Refusal.ISSUER, ": ".join(filter(None, words)) or str(status))
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise SignInRefusedError(Refusal.TOKEN, "the answer has no ID token")
        return token

    async def _ask(
        self,
        method: str,
        url: str,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Return status and document. A status from 500 on is an error, and so is a 4xx answer to a GET."""
        timeout = aiohttp.ClientTimeout(total=self._settings.timeout_s)
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            session.request(
                method,
                url,
                data=form,
                headers={"Accept": "application/json", **(headers or {})},
                allow_redirects=False,
            ) as answer,
        ):
            content = bytearray()
            async for piece in answer.content.iter_any():
                content += piece
                if len(content) > _ANSWER_BYTES_MAX:
                    raise ValueError(f"{url}: the answer is longer than {_ANSWER_BYTES_MAX} bytes")
        bad = answer.status >= 500 or (answer.status != 200 and method == "GET")  # noqa: PLR2004 - of HTTP
        if bad or 300 <= answer.status < 400:  # noqa: PLR2004 - of HTTP
            raise ValueError(f"{url}: status {answer.status}")
        try:
            document = orjson.loads(bytes(content))
        except orjson.JSONDecodeError as error:
            raise ValueError(f"{url}: the answer is not JSON") from error
        if not isinstance(document, dict):
            raise ValueError(f"{url}: the answer is not a JSON object")  # noqa: TRY004 - of the other side
        return answer.status, document


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
