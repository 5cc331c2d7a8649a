"""Each way in which a registry refuses is named, with its setting and without a secret; the right credentials pass."""

# ruff: noqa: ANN401 - settings as from TOML

from __future__ import annotations

import asyncio
import base64
import http.server
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest

from stream_guard.core.errors import RegistryError, SchemaError, SettingsError
from stream_guard.kafka.registry import schemas as schemas_module
from stream_guard.kafka.registry.client import RegistryClient
from stream_guard.kafka.registry.schemas import Schemas
from stream_guard.settings import RegistrySettings
from tests.registry import RegistryServer, start_registry
from tests.unit.kafka.test_connection_failure import Authority, tls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET: Final = "hunter2-secret"  # noqa: S105 - made up; no output may hold it
LONG: Final = {"type": "record", "name": "R", "fields": [{"name": "id", "type": "long"}]}


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with start_registry() as started:
        yield started


def types(**settings: Any) -> list[str]:
    """Ask a registry for its kinds of schemas, as ``check`` does."""

    async def ask() -> list[str]:
        async with RegistryClient(RegistrySettings(**settings)) as client:
            return await client.types()

    return asyncio.run(ask())


def refused(**settings: Any) -> str:
    """Return the error of a request, which holds no secret."""
    with pytest.raises((RegistryError, SettingsError)) as caught:
        types(**settings)
    said = str(caught.value)
    assert SECRET not in said
    assert base64.b64encode(f"guard:{SECRET}".encode()).decode() not in said
    return said


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_basic_authentication(server: RegistryServer, tmp_path: Path) -> None:
    server.registry.authorization = basic("guard", SECRET)
    assert types(url=server.url, username="guard", password=SECRET) == ["JSON", "PROTOBUF", "AVRO"]
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\n")
    assert types(url=server.url, username="guard", password_file=file)
    assert "refused the credentials (HTTP 401)" in refused(url=server.url)
    wrong = refused(url=server.url, username="guard", password=f"not-{SECRET}")
    assert "registry.username" in wrong


def test_a_token_of_a_file_is_read_for_each_request(server: RegistryServer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    settings = RegistrySettings(url=server.url, bearer_token_file=file)

    async def rotate() -> None:
        async with RegistryClient(settings) as client:
            server.registry.authorization = "Bearer old"
            assert await client.types()
            server.registry.authorization = "Bearer new"
            with pytest.raises(RegistryError, match="401"):
                await client.types()
            file.write_text("new")
            assert await client.types()

    asyncio.run(rotate())
    server.registry.authorization = f"Bearer {SECRET}"
    assert types(url=server.url, bearer_token=SECRET)
    assert "registry.bearer_token_file" in refused(
        url=server.url, bearer_token_file=tmp_path / "no"
    )


def test_mutual_tls_passes_and_each_refusal_is_named(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path), Authority(tmp_path, "another CA")
    cert, key = ours.issue("guard", password=SECRET)
    with start_registry(tls(ours.issue("localhost"), clients=ours)) as server:
        mutual = {
            "url": server.url,
            "ssl_cafile": ours.file,
            "ssl_certfile": cert,
            "ssl_keyfile": key,
        }
        assert types(**mutual, ssl_key_password=SECRET)
        assert "registry.ssl_key_password" in refused(**mutual)
        assert "ssl_cafile" in refused(**mutual, ssl_key_password=f"not {SECRET}")
        assert "certificate is not trusted" in refused(url=server.url, ssl_cafile=theirs.file)
        assert "registry.ssl_cafile" in refused(url=server.url, ssl_cafile=tmp_path / "missing")
        assert "cannot be reached" in refused(url=server.url, ssl_cafile=ours.file)
        plain = server.url.replace("https", "http")
        assert "cannot be reached" in refused(url=plain)


def test_another_server_at_the_url_is_named() -> None:
    handler = http.server.SimpleHTTPRequestHandler
    handler.log_message = lambda *_: None  # type: ignore[assignment] # says nothing
    other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=other.serve_forever, args=(0.05,), daemon=True).start()
    try:
        said = refused(url=f"http://localhost:{other.server_port}")
    finally:
        other.shutdown()
        other.server_close()
    assert "answers, but not as a schema registry (HTTP 404 for schemas/types)" in said


def test_unreachable_hosts_and_ports_are_named(server: RegistryServer) -> None:
    assert "host name is unknown" in refused(url="http://no-such-host.invalid:8081")
    server.stop()
    assert "connection refused" in refused(url=server.url)


def test_a_silent_server_is_given_up_at_the_timeout() -> None:
    async def ask() -> str:
        async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hold.wait()
            writer.close()

        hold = asyncio.Event()
        listener = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        settings = RegistrySettings(url=f"http://127.0.0.1:{port}", timeout_s=0.05)
        async with RegistryClient(settings) as client:
            with pytest.raises(RegistryError) as caught:
                await client.types()
        hold.set()
        listener.close()
        return str(caught.value)

    assert "registry.timeout_s" in asyncio.run(ask())


def test_a_second_url_answers_where_the_first_one_does_not(server: RegistryServer) -> None:
    with start_registry() as first:
        both = f"{first.url}, {server.url}/"
        first.stop()
        assert types(url=both)
        assert server.registry.requests == ["GET /schemas/types"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "registry:8081"}, "not a URL"),
        ({"url": f"https://guard:{SECRET}@registry"}, "registry.username"),
        ({"username": "guard"}, "must be set together"),
        ({"username": "g", "password": SECRET, "password_file": "/f"}, "exclude each other"),
        ({"username": "g", "password": SECRET, "bearer_token": SECRET}, "exclude each other"),
        ({"ssl_certfile": "/f"}, "must be set together"),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RegistrySettings(**settings)


def test_a_schema_that_cannot_be_used_is_an_error_of_its_records(server: RegistryServer) -> None:
    registry = server.registry
    zero = {"type": "array", "items": "null"}
    wanted = {
        registry.register("a", zero): "items without bytes",
        99: "40403",
    }
    registry.schemas.append({"schema": "{}", "schemaType": "XML"})
    wanted[len(registry.schemas)] = "'XML' is none of"
    registry.schemas.append({"schema": "{", "schemaType": "AVRO"})
    wanted[len(registry.schemas)] = "not JSON"
    registry.schemas.append(
        {"schema": '{"type":"record","name":"R","fields":[]}', "references": [{"name": "x"}]}
    )
    wanted[len(registry.schemas)] = "references are malformed"
    registry.schemas.append(
        {
            "schema": '{"type":"record","name":"R","fields":[]}',
            "references": [{"name": "x", "subject": "gone", "version": 1}],
        }
    )
    wanted[len(registry.schemas)] = "40401"

    async def load() -> dict[bytes, Any]:
        schemas = Schemas(RegistrySettings(url=server.url))
        for each in wanted:
            await schemas.prepare([Framed(b"\0" + each.to_bytes(4))])  # type: ignore[list-item]
        await schemas.close()
        return schemas.known

    known = asyncio.run(load())
    for each, said in wanted.items():
        error = known[each.to_bytes(4)]
        assert isinstance(error, SchemaError)
        assert said in str(error)
        assert f"schema id {each} from the registry at {server.url}" in str(error)


class Framed:
    """A record that names a schema."""

    headers = ()

    def __init__(self, value: bytes) -> None:
        self.value = value


def test_an_unknown_schema_that_is_registered_later_is_found(
    server: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schemas_module, "_UNKNOWN_S", 0.0)
    record: Any = Framed(b"\0\0\0\0\1")

    async def load() -> tuple[Any, Any]:
        schemas = Schemas(RegistrySettings(url=server.url))
        await schemas.prepare([record])
        first = schemas.known[b"\0\0\0\1"]
        server.registry.register("a", LONG)
        schemas.forget_errors()
        await schemas.prepare([record])
        await schemas.close()
        return first, schemas.known[b"\0\0\0\1"]

    first, second = asyncio.run(load())
    assert isinstance(first, SchemaError)
    assert second.decode(b"\x0e", b"", 0, 64) == ({"id": 7}, False)
