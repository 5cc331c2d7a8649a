"""Secrets in files are read again for new connections; a bad file keeps the last good content and is logged."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from stream_guard.core.errors import SettingsError
from stream_guard.kafka.credentials import RotatingContext, SecretFile
from stream_guard.kafka.security import connection_options
from stream_guard.settings import KafkaSettings
from stream_guard.testing import CertificateAuthority

if TYPE_CHECKING:
    from pathlib import Path


def options(**security: Any) -> dict[str, Any]:  # noqa: ANN401
    return connection_options(KafkaSettings.model_validate({"security": security}))


def test_a_password_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    made = options(
        protocol="SASL_SSL", sasl_mechanism="PLAIN", username="guard", password_file=file
    )
    password = made["sasl_plain_password"]
    assert password.read() == "first"
    file.write_text("second")
    assert password.read() == "second"
    assert "second" not in repr(made)


def test_a_password_file_that_vanishes_keeps_its_last_password(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first")
    password = SecretFile(file, "kafka.security.password_file")
    file.unlink()
    with capture_logs() as logs:
        assert [password.read(), password.read()] == ["first", "first"]
    assert [line["event"] for line in logs] == ["credentials_not_read"]
    assert "kafka.security.password_file" in logs[0]["error"]
    file.write_text("")
    assert password.read() == "first"
    file.write_text("second")
    assert password.read() == "second"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file or directory; name a text file that this user may read"),
        (b"\n", "is empty; write the secret into it"),
        (b"\xff", "not UTF-8; name a text file that this user may read"),
    ],
)
def test_a_file_without_a_secret_is_a_wrong_setting(
    content: bytes | None, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=words) as raised:
        SecretFile(file, "kafka.security.password_file")
    assert str(raised.value).startswith("kafka.security.password_file: ")


async def test_a_token_file_is_read_for_each_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    made = options(protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER", oauth_token_file=file)
    provider = made["sasl_oauth_token_provider"]
    assert await provider.token() == "first"
    file.write_text("second\n")
    assert await provider.token() == "second"


async def shown(context: ssl.SSLContext, authority: CertificateAuthority) -> str:
    """Return the serial number of the certificate that a client with this context shows."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.ca_file))
    server.verify_mode = ssl.CERT_REQUIRED
    files = authority.issue("broker", hosts=("127.0.0.1",))
    server.load_cert_chain(files.certificate_file, files.key_file)
    seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(writer.get_extra_info("peercert")["serialNumber"])
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server) as listening:
        port = listening.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            return await seen
        finally:
            writer.close()


async def test_a_replaced_certificate_is_shown_on_the_next_connection(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    files = authority.issue("guard")
    made = options(
        protocol="SSL",
        ssl_cafile=authority.ca_file,
        ssl_certfile=files.certificate_file,
        ssl_keyfile=files.key_file,
    )
    context = made["ssl_context"]
    first = await shown(context, authority)
    assert await shown(context, authority) == first
    # A kubelet replaces both at once; anybody else one after the other.
    new = authority.issue("guard", file_name="new")
    new.certificate_file.replace(files.certificate_file)
    with capture_logs() as logs:
        assert await shown(context, authority) == first
    assert "is not the key of the certificate" in logs[0]["error"]
    new.key_file.replace(files.key_file)
    with capture_logs() as logs:
        assert await shown(context, authority) != first
    assert [line["event"] for line in logs] == ["certificates_reloaded"]


def test_the_key_s_password_may_be_a_file(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    files = authority.issue("guard")
    encrypted, password = tmp_path / "encrypted.key", tmp_path / "password"
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(files.key_file.read_bytes(), None)
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"open-sesame"),
        )
    )
    names = {"protocol": "SSL", "ssl_certfile": files.certificate_file, "ssl_keyfile": encrypted}
    password.write_text("open-sesame\n")
    assert "ssl_context" in options(**names, ssl_key_password_file=password)
    password.write_text("wrong")
    with pytest.raises(SettingsError, match="does not open"):
        options(**names, ssl_key_password_file=password)


@pytest.mark.parametrize(
    ("security", "words"),
    [
        (
            {"sasl_mechanism": "PLAIN", "username": "u", "password": "p", "password_file": "f"},
            "password and password_file exclude each other",
        ),
        (
            {"sasl_mechanism": "OAUTHBEARER", "oauth_token_hook": "a:b", "oauth_token_file": "f"},
            "oauth_token_hook .* or oauth_token_file is required",
        ),
        (
            {"sasl_mechanism": "OAUTHBEARER"},
            "oauth_token_hook .* or oauth_token_file is required",
        ),
    ],
)
def test_a_secret_has_one_place(security: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        KafkaSettings.model_validate({"security": {"protocol": "SASL_SSL", **security}})


def test_a_client_that_is_made_between_two_halves_of_a_new_pair_waits_for_the_other_half(
    tmp_path: Path,
) -> None:
    tries = []

    def make() -> ssl.SSLContext:
        tries.append(1)
        if len(tries) < 3:
            raise SettingsError("the key is not that of the certificate")
        return ssl.create_default_context()

    RotatingContext(make, [tmp_path / "pair"])
    assert len(tries) == 3


def test_a_pair_that_never_matches_is_refused_and_waited_for_once(tmp_path: Path) -> None:
    file, tries = tmp_path / "pair", []

    def make() -> ssl.SSLContext:
        tries.append(1)
        raise SettingsError("the key is not that of the certificate")

    counts = []
    for content in ("old", None, "newer"):
        if content is not None:
            file.write_text(content)
        tries.clear()
        with pytest.raises(SettingsError, match="not that of the certificate"):
            RotatingContext(make, [file])
        counts.append(len(tries))
    assert counts == [6, 1, 6], "the second client finds the files that the first one gave up"
