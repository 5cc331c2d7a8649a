"""A client of the schema registry's REST API: schemas by id, by GUID and by version.

The source of paths and error codes is Confluent's API reference
(https://docs.confluent.io/platform/current/schema-registry/develop/api.html). No message holds a credential.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

import aiohttp
import orjson

from stream_guard.core.errors import RegistryError, SchemaError, SettingsError, named
from stream_guard.core.version import package_version
from stream_guard.kafka.registry.connection import authorization, ssl_context

if TYPE_CHECKING:
    from stream_guard.settings import RegistrySettings

__all__ = ["RegistryClient"]

_TYPE: Final = "application/vnd.schemaregistry.v1+json"
_UNKNOWN: Final = frozenset((40401, 40402, 40403))
"""Error codes of a subject, a version and a schema that do not exist."""
_READ: Final = "read schemas and subjects"
_RIGHTS: Final = {"/versions": "write this subject, or set output.auto_register to false"}
"""What a user needs, by the end of the path."""
_ANSWER_BYTES_MAX: Final = 8 << 20


class RegistryClient:
    """Speaks to one registry. Use it as an asynchronous context manager.

    Args:
        settings: the section.

    Raises:
        SettingsError: a file of TLS cannot be used.
    """

    def __init__(self, settings: RegistrySettings) -> None:
        self._settings = settings
        self._ssl = ssl_context(settings)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._ssl, limit=8),
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s),
            headers={"Accept": _TYPE, "User-Agent": f"stream-guard/{package_version()}"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def schema(self, path: str) -> dict[str, Any]:
        """Return what the registry has at a path: an object with ``schema``, ``schemaType`` and ``references``.

        Args:
            path: for example ``schemas/ids/7``.

        Raises:
            SchemaError: the registry says that it does not exist.
            RegistryError: the registry is unreachable, or refused the request.
        """
        found = await self._request("GET", path)
        if not isinstance(found, dict) or not isinstance(found.get("schema"), str):
            raise self._no_registry(self._settings.urls[0], path, "an answer without a schema")
        return found

    async def version(self, subject: str, version: int, options: str) -> dict[str, Any]:
        """Return the schema of a subject's version; raises as :meth:`schema`."""
        return await self.schema(f"subjects/{quote(subject, safe='')}/versions/{version}{options}")

    async def register(self, subject: str, schema: str) -> int:
        """Register an Avro schema under a subject, and return its id; a schema that is registered keeps its id.

        Raises:
            SettingsError: it is incompatible with an earlier version of the subject.
            RegistryError: the registry is unreachable, or refused the request.
        """
        path = f"subjects/{quote(subject, safe='')}/versions"
        try:
            return self._id(path, await self._request("POST", path, {"schema": schema}))
        except SchemaError as error:
            raise self._no_registry(self._settings.urls[0], path, str(error)) from None

    async def look_up(self, subject: str, schema: str) -> int:
        """Return the id of an Avro schema that is registered under a subject.

        Raises:
            SchemaError: the subject or this schema of it does not exist.
            RegistryError: the registry is unreachable, or refused the request.
        """
        path = f"subjects/{quote(subject, safe='')}"
        return self._id(path, await self._request("POST", path, {"schema": schema}))

    async def is_compatible(self, subject: str, schema: str) -> bool:
        """Return whether a subject would take an Avro schema as its next version; changes nothing.

        Raises:
            RegistryError: the registry is unreachable, or refused the request.
        """
        path = f"compatibility/subjects/{quote(subject, safe='')}/versions"
        try:
            found = await self._request("POST", path, {"schema": schema})
        except SchemaError:
            return True  # it has no version yet
        if not isinstance(found, dict) or not isinstance(found.get("is_compatible"), bool):
            raise self._no_registry(self._settings.urls[0], path, "an answer without is_compatible")
        return bool(found["is_compatible"])

    def _id(self, path: str, found: Any) -> int:  # noqa: ANN401 - any JSON value
        number = found.get("id") if isinstance(found, dict) else None
        if not isinstance(number, int) or not 0 <= number < 1 << 32:
            raise self._no_registry(self._settings.urls[0], path, "an answer without an id")
        return number

    async def types(self) -> list[str]:
        """Return the kinds of schemas that the registry supports. Raises RegistryError."""
        path = "schemas/types"
        try:
            found = await self._request("GET", path)
        except SchemaError as error:
            raise self._no_registry(self._settings.urls[0], path, str(error)) from None
        if not isinstance(found, list):
            raise self._no_registry(self._settings.urls[0], path, "an answer that is no list")
        return [str(each) for each in found]

    async def _request(self, method: str, path: str, document: Any = None) -> Any:  # noqa: ANN401 - any JSON value
        """Return the answer of the first URL that gives one."""
        first: RegistryError | None = None
        for url in self._settings.urls:
            try:
                return await self._ask(method, url, path, document)
            except RegistryError as error:
                first = first or error
        assert first is not None, "registry.url is set"
        raise first

    async def _ask(self, method: str, url: str, path: str, document: Any) -> Any:  # noqa: ANN401 - any JSON value
        assert self._session is not None, "entered"
        place = f"the schema registry at {url} (registry.url)"
        headers = await asyncio.to_thread(authorization, self._settings)
        if document is not None:
            headers["Content-Type"] = _TYPE
        try:
            async with self._session.request(
                method, f"{url}/{path}", headers=headers, json=document, allow_redirects=False
            ) as response:
                body = await response.content.read(_ANSWER_BYTES_MAX)
                status = response.status
        except TimeoutError:
            message = (
                f"{place} did not answer within {self._settings.timeout_s:g} s (registry.timeout_s)"
            )
            raise RegistryError(message) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            message = f"{place} cannot be reached: {_cause(error)}"
            raise RegistryError(message) from None
        return self._read(url, path, status, body)

    def _read(self, url: str, path: str, status: int, body: bytes) -> Any:  # noqa: ANN401 - any JSON value
        place = f"the schema registry at {url} (registry.url)"
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            answer = None
        if status == 200 and answer is not None:  # noqa: PLR2004 - HTTP's word for success
            return answer
        code = answer.get("error_code") if isinstance(answer, dict) else None
        if status == 401:  # noqa: PLR2004 - unauthorized
            message = f"{place} refused the credentials (HTTP 401); check registry.username, password or bearer_token"
            raise RegistryError(message)
        if status == 403:  # noqa: PLR2004 - forbidden
            message = (
                f"{place} forbids {path} (HTTP 403); let this user {_RIGHTS.get(path[-9:], _READ)}"
            )
            raise RegistryError(message)
        if status == 409:  # noqa: PLR2004 - conflict
            message = (
                f"{place} refuses the schema for {path}: it is incompatible with an earlier version (HTTP 409); choose "
                "another output.subject_name_strategy or topic, or lower the subject's compatibility level"
            )
            raise SettingsError(message)
        if status == 404 and code in _UNKNOWN:  # noqa: PLR2004 - not found, and the registry itself says so
            message = f"it does not exist (error {code})"
            raise SchemaError(message)
        if status in (408, 429) or status >= 500:  # noqa: PLR2004 - it may work later
            message = f"{place} is not able to answer (HTTP {status}, error {code})"
            raise RegistryError(message)
        if status == 422 or code is not None:  # noqa: PLR2004 - the request itself
            message = f"{place} refused {path} (HTTP {status}, error {code})"
            raise RegistryError(message)
        raise self._no_registry(url, path, f"HTTP {status}")

    def _no_registry(self, url: str, path: str, answer: str) -> RegistryError:
        return RegistryError(
            f"{url} (registry.url) answers, but not as a schema registry ({answer} for {path}); check the host, port "
            "and path"
        )


def _cause(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted, or is for another host; set registry.ssl_cafile"
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS failed; check https or http in registry.url, and registry.ssl_certfile where it asks for one"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its host name is unknown; check registry.url"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return f"{os.strerror(number).lower() if number else named(error.os_error)}; check registry.url"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection; check https or http in registry.url"
    return type(error).__name__
