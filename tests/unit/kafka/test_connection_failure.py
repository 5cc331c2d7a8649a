"""Each way in which a broker refuses a connection is named, with its remedy and without a secret."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stream_guard.core.errors import BrokerAwayError, BrokerError, SettingsError
from stream_guard.kafka.connection_failure import find_cause
from stream_guard.kafka.input_topics import existing_topics
from stream_guard.kafka.security import connection_options
from stream_guard.settings import KafkaSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

SECRET: Final = "hunter2-secret"  # noqa: S105 - made up; no output may hold it
NOW: Final = dt.datetime.now(dt.UTC)
DAY: Final = dt.timedelta(days=1)


@dataclass
class Authority:
    """A CA that issues certificates into a folder."""

    folder: Path
    name: str = "test CA"

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        self.certificate = self._sign(self.subject, self.key, NOW - 9 * DAY, NOW + DAY, ca=True)
        self.file = self.folder / f"{self.name}.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        start: dt.datetime,
        end: dt.datetime,
        *,
        ca: bool,
        names: Sequence[x509.GeneralName] = (),
    ) -> x509.Certificate:
        built = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            built = built.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return built.sign(self.key, hashes.SHA256())

    def issue(
        self, name: str, *, days: int = 1, start: int = -9, password: str | None = None
    ) -> tuple[Path, Path]:
        """Return the files of a certificate for 127.0.0.1 (or a host called ``name``) and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        try:
            names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(name))]
        except ValueError:
            names = [x509.DNSName(name)]
        certificate = self._sign(
            subject, key, NOW + start * DAY, NOW + days * DAY, ca=False, names=names
        )
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            encryption = serialization.BestAvailableEncryption(password.encode())
        files = self.folder / f"{name}{days}.pem", self.folder / f"{name}{days}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
            )
        )
        return files


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def tls(files: tuple[Path, Path], clients: Authority | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*files)
    if clients is not None:
        context.load_verify_locations(clients.file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


_VERSIONS: Final = struct.pack(">hi", 0, 3) + b"".join(
    struct.pack(">hhh", *one) for one in ((17, 0, 1), (18, 0, 0), (36, 0, 0))
)


def _handshake(error: int, mechanisms: tuple[str, ...]) -> bytes:
    words = b"".join(struct.pack(">h", len(one)) + one.encode() for one in mechanisms)
    return struct.pack(">hi", error, len(mechanisms)) + words


@contextlib.asynccontextmanager
async def listening(
    context: ssl.SSLContext | None = None, mechanisms: tuple[str, ...] = ()
) -> AsyncIterator[int]:
    """Listen as a Kafka broker does, as far as SASL; every password is wrong. Yields the port."""
    tasks: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, EOFError, ssl.SSLError):
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                if not 0 < size < 10_000:
                    break  # as Kafka does with what is no request
                request = await reader.readexactly(size)
                api, _, correlation = struct.unpack(">hhi", request[:8])
                if api == 18:
                    body = _VERSIONS
                elif api == 17:
                    client = struct.unpack(">h", request[8:10])[0]
                    asked = request[12 + client :].decode()
                    known = 0 if asked in mechanisms else 33
                    body = _handshake(known if mechanisms else 34, mechanisms)
                elif api == 36:
                    body = struct.pack(">hhi", 58, -1, 0)
                else:
                    break  # a listener with SASL ends a connection that asks for anything else
                writer.write(struct.pack(">ii", len(body) + 4, correlation) + body)
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*(task for task in tasks if task is not None))


@contextlib.contextmanager
def handshaking(context: ssl.SSLContext) -> Iterator[int]:
    """Listen for one TLS handshake after another, in a thread; unlike asyncio it sends its alerts. Yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = listener.accept()
                with accepted, contextlib.suppress(OSError):
                    context.wrap_socket(accepted, server_side=True).close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def settings_of(port: int, protocol: str, **security: Path | str | bool) -> KafkaSettings:
    if protocol.startswith("SASL"):
        login: dict[str, Path | str | bool] = {
            "sasl_mechanism": "PLAIN",
            "username": "guard",
            "password": SECRET,
        }
        security = login | security
    return KafkaSettings(
        bootstrap_servers=f"127.0.0.1:{port}",
        security={"protocol": protocol, **security},  # type: ignore[arg-type] # as from TOML
    )


async def cause_of(port: int, protocol: str, **security: Path | str | bool) -> str:
    settings = settings_of(port, protocol, **security)
    found = await find_cause(settings, connection_options(settings))
    assert found is not None
    assert found.answered
    assert SECRET not in found.text
    assert "\n" not in found.text
    return found.text


async def test_a_certificate_of_an_unknown_ca_is_named(authority: Authority) -> None:
    async with listening(tls(authority.issue("127.0.0.1"))) as port:
        told = await cause_of(port, "SSL")
    assert "unknown CA" in told
    assert "kafka.security.ssl_cafile" in told


async def test_an_expired_certificate_is_named(authority: Authority) -> None:
    async with listening(tls(authority.issue("127.0.0.1", days=-1))) as port:
        told = await cause_of(port, "SSL", ssl_cafile=authority.file)
    assert "has expired; renew it" in told


async def test_a_certificate_of_the_future_is_named(authority: Authority) -> None:
    async with listening(tls(authority.issue("127.0.0.1", days=3, start=2))) as port:
        told = await cause_of(port, "SSL", ssl_cafile=authority.file)
    assert "not valid yet; check the clocks" in told


async def test_a_wrong_host_name_is_named(authority: Authority) -> None:
    async with listening(tls(authority.issue("broker.example"))) as port:
        told = await cause_of(port, "SSL", ssl_cafile=authority.file)
        assert "is for another host name" in told
        # Unless the settings do not ask for the name.
        settings = settings_of(port, "SSL", ssl_cafile=authority.file, ssl_check_hostname=False)
        assert await find_cause(settings, connection_options(settings)) is None


async def test_a_listener_without_tls_is_named() -> None:
    async with listening() as port:
        told = await cause_of(port, "SSL")
    assert "no TLS; set kafka.security.protocol to PLAINTEXT" in told


async def test_a_listener_with_tls_is_named(authority: Authority) -> None:
    async with listening(tls(authority.issue("127.0.0.1"))) as port:
        told = await cause_of(port, "PLAINTEXT")
        assert "speaks TLS, kafka.security.protocol is PLAINTEXT; set it to SSL" in told
        told = await cause_of(port, "SASL_PLAINTEXT")
        assert "set it to SASL_SSL" in told


async def test_a_missing_client_certificate_is_named(authority: Authority) -> None:
    server = tls(authority.issue("127.0.0.1"), clients=authority)
    with handshaking(server) as port:
        told = await cause_of(port, "SSL", ssl_cafile=authority.file)
    assert "requires a client certificate; set kafka.security.ssl_certfile" in told
    # asyncio's server, like some proxies, says nothing and hangs up.
    async with listening(server) as port:
        told = await cause_of(port, "SSL", ssl_cafile=authority.file)
    assert "probably requires a client certificate" in told


async def test_a_client_certificate_of_another_ca_is_named(
    authority: Authority, tmp_path: Path
) -> None:
    files = Authority(tmp_path, "other CA").issue("client")
    server = tls(authority.issue("127.0.0.1"), clients=authority)
    with handshaking(server) as port:
        told = await cause_of(
            port,
            "SSL",
            ssl_cafile=authority.file,
            ssl_certfile=files[0],
            ssl_keyfile=files[1],
        )
    assert "rejects the client certificate" in told
    assert "unknown_ca" in told


async def test_a_wrong_password_is_named_without_it(authority: Authority) -> None:
    server = tls(authority.issue("127.0.0.1"))
    async with listening(server, ("PLAIN",)) as port:
        told = await cause_of(port, "SASL_SSL", ssl_cafile=authority.file)
    assert "rejects user 'guard' or the password (PLAIN)" in told


async def test_a_mechanism_that_the_broker_lacks_is_named_with_those_that_it_has() -> None:
    async with listening(mechanisms=("SCRAM-SHA-256", "SCRAM-SHA-512")) as port:
        told = await cause_of(port, "SASL_PLAINTEXT")
    assert "does not offer the SASL mechanism PLAIN but SCRAM-SHA-256, SCRAM-SHA-512" in told


async def test_a_listener_that_requires_sasl_is_named() -> None:
    async with listening(mechanisms=("PLAIN",)) as port:
        told = await cause_of(port, "PLAINTEXT")
    assert "requires SASL (PLAIN); set kafka.security.protocol to SASL_PLAINTEXT" in told


async def test_a_listener_without_sasl_is_named() -> None:
    async with listening() as port:
        told = await cause_of(port, "SASL_PLAINTEXT")
    assert "uses no SASL; set kafka.security.protocol to PLAINTEXT" in told


async def test_a_port_where_nothing_listens_is_named() -> None:
    settings = settings_of(9, "PLAINTEXT")
    found = await find_cause(settings, connection_options(settings))
    assert found is not None
    assert not found.answered
    assert "127.0.0.1:9 refuses the connection; start the broker" in found.text


async def test_a_host_that_does_not_resolve_is_named() -> None:
    settings = KafkaSettings(bootstrap_servers="nowhere.invalid:9092")
    found = await find_cause(settings, connection_options(settings))
    assert found is not None
    assert "the host name 'nowhere.invalid' does not resolve" in found.text


async def test_a_broker_that_refuses_says_more_than_one_that_is_away() -> None:
    async with listening(mechanisms=("PLAIN",)) as port:
        settings = KafkaSettings(bootstrap_servers=f"127.0.0.1:9,127.0.0.1:{port}")
        found = await find_cause(settings, connection_options(settings))
    assert found is not None
    assert "requires SASL" in found.text


async def test_the_cause_is_what_every_command_says(authority: Authority) -> None:
    async with listening(tls(authority.issue("127.0.0.1"))) as port:
        with pytest.raises(BrokerError, match=r"cannot be used: the certificate of .* unknown CA"):
            await existing_topics(settings_of(port, "SSL"), timeout_s=5)


@pytest.mark.parametrize("protocol", ["SSL", "PLAINTEXT"])
async def test_a_connection_that_ends_without_a_reason_may_be_tried_again(
    authority: Authority, protocol: str
) -> None:
    """So does a proxy whose broker is away; what a broker says stays final."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    settings = settings_of(server.sockets[0].getsockname()[1], protocol)
    async with server:
        with pytest.raises(BrokerAwayError, match="cannot be used"):
            await existing_topics(settings, timeout_s=5)
    async with listening(tls(authority.issue("127.0.0.1"))) as port:
        with pytest.raises(BrokerError) as caught:
            await existing_topics(settings_of(port, "SSL"), timeout_s=5)
    assert not isinstance(caught.value, BrokerAwayError)


def test_an_encrypted_key_never_asks_at_the_terminal(authority: Authority) -> None:
    certfile, keyfile = authority.issue("client", password=SECRET)
    paths = {"ssl_certfile": certfile, "ssl_keyfile": keyfile}
    with pytest.raises(SettingsError, match=r"the key is encrypted; set .*ssl_key_password"):
        connection_options(settings_of(1, "SSL", **paths))
    with pytest.raises(SettingsError, match="ssl_key_password does not open"):
        connection_options(settings_of(1, "SSL", **paths, ssl_key_password="wrong"))  # noqa: S106 - a wrong one
    assert connection_options(settings_of(1, "SSL", **paths, ssl_key_password=SECRET))


def test_a_file_that_is_no_certificate_is_named(authority: Authority, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no certificate")
    for path, what in ((text, "is not a PEM file"), (tmp_path / "none", "No such file")):
        with pytest.raises(SettingsError, match=f"kafka.security.ssl_cafile: .*{what}"):
            connection_options(settings_of(1, "SSL", ssl_cafile=path))
    one, other = authority.issue("a"), authority.issue("b")
    with pytest.raises(SettingsError, match="is not the key of the certificate"):
        connection_options(settings_of(1, "SSL", ssl_certfile=one[0], ssl_keyfile=other[1]))
