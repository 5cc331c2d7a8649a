"""Fetches the Avro schemas of verdicts from a schema registry, each once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
import orjson

from stream_guard.client.errors import ClientError, RegistryError
from stream_guard.core.errors import SchemaError
from stream_guard.records.decoding.frame import find_frame, key_name

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from stream_guard.records.decoding.schema import Schema

__all__ = ["SchemaRegistry"]

_FOUND: Final = 200
_MISSING: Final = 404
_UNKNOWN_SCHEMA: Final = 40403
_ID_BYTES: Final = 4
_ANSWER_BYTES_MAX: Final = 1 << 20


class SchemaRegistry:
    """A schema registry with Confluent's REST API. Needs the extra ``registry``.

    Args:
        url: for example ``https://registry:8081``.
        headers: of each request, for example ``{"Authorization": "Bearer ..."}``.
        ssl_context: for https; the system's default if None.
        timeout_s: timeout of one request.

    Raises:
        ClientError: the extra is not installed.

    Attributes:
        known: fetched schemas by id; an error says why one cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        timeout_s: float = 5,
    ) -> None:
        try:
            from stream_guard.records.decoding.avro import AvroSchema
        except ImportError as error:
            message = f"{error.name} is not installed; install the extra: pip install 'stream-guard[registry]'"
            raise ClientError(message) from error
        self._compile = AvroSchema
        self._url = url.rstrip("/")
        self._headers = dict(headers or {})
        self._ssl = True if ssl_context is None else ssl_context
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self.known: dict[bytes, Schema | SchemaError] = {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def is_known(self, value: bytes | None) -> bool:
        """Return whether a verdict's value can be read now: it is JSON, or its schema was fetched."""
        found = find_frame(value or b"", ())
        return found is None or found[0] in self.known

    async def fetch(self, value: bytes) -> None:
        """Fetch the schema of a verdict's value into :attr:`known`; call :meth:`is_known` first.

        Raises:
            RegistryError: the registry is unreachable, or refused the request.
        """
        found = find_frame(value, ())
        assert found is not None, "is_known was asked"
        key = found[0]
        if len(key) != _ID_BYTES:
            self.known[key] = SchemaError(f"{key_name(key)}: Stream Guard writes schema ids")
            return
        text = await self._schema(key)
        if text is None:
            self.known[key] = SchemaError(f"{key_name(key)} from {self._url}: it does not exist")
            return
        try:
            self.known[key] = self._compile(orjson.loads(text), ())
        except (SchemaError, orjson.JSONDecodeError) as error:
            self.known[key] = SchemaError(f"{key_name(key)} from {self._url}: {error}")

    async def _schema(self, key: bytes) -> str | None:
        """Return the text of a schema; None if the registry says that it does not exist."""
        assert self._session is not None, "entered"
        address = f"{self._url}/schemas/ids/{int.from_bytes(key)}"
        try:
            async with self._session.get(address, ssl=self._ssl, allow_redirects=False) as response:
                body = await response.content.read(_ANSWER_BYTES_MAX)
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            message = f"the schema registry at {self._url} cannot be reached: {type(error).__name__}; check the URL"
            raise RegistryError(message) from error
        document = _read(body)
        if status == _FOUND and isinstance(document.get("schema"), str):
            return str(document["schema"])
        if status == _MISSING and document.get("error_code") == _UNKNOWN_SCHEMA:
            return None
        message = (
            f"the schema registry at {self._url} answered HTTP {status} for {key_name(key)}; check the URL and the "
            "credentials in headers"
        )
        raise RegistryError(message)


def _read(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}
