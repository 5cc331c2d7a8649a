"""Finds out why no broker can be used: the cause in one line, with its remedy.

aiokafka says "unable to bootstrap" for a wrong password, an expired certificate and a stopped broker alike. The probe
repeats a connection step by step: address, TCP, TLS, Kafka's protocol, SASL. The step that fails names the cause.

Its messages hold host names and the names of settings, never a secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka.conn import create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.admin import SaslHandShakeRequest
from aiokafka.protocol.metadata import MetadataRequest

from stream_guard.core.errors import BrokerAwayError, BrokerError, named
from stream_guard.kafka.security import TokenError, client_identity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.settings import KafkaSettings

__all__ = ["Cause", "find_cause", "split_address", "unusable"]

_STEP_TIMEOUT_S: Final = 5.0
_ALERT_TIMEOUT_S: Final = 1.0
_DEFAULT_PORT: Final = 9092
# OpenSSL's verification results, include/openssl/x509_vfy.h.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_UNKNOWN_CA: Final = frozenset({2, 7, 18, 19, 20, 21})  # 7: a CA of the same name, with another key
_WRONG_HOST: Final = frozenset({62, 64})
_UNSUPPORTED_SASL_MECHANISM: Final = 33


class Cause(NamedTuple):
    """Why a broker cannot be used.

    Attributes:
        answered: whether something listens at the address.
        text: the cause and its remedy.
        certain: whether the broker said so. A connection that ends without a reason may also be a cut, a proxy without
            its broker, or a broker that is about to stop: then another try may succeed.
    """

    answered: bool
    text: str
    certain: bool = True


async def find_cause(settings: KafkaSettings, options: Mapping[str, Any]) -> Cause | None:
    """Return why the bootstrap brokers cannot be used; None where the probe reaches one of them.

    Args:
        settings: the addresses and the security settings.
        options: of the Kafka clients, as ``connection_options`` returns them.
    """
    found: Cause | None = None
    for address in settings.bootstrap_servers.split(","):
        host, port = split_address(address)
        cause = await _probe(settings, options, host, port)
        if cause is None:
            return None
        # A broker that refuses us says more than one that ends the connection, and that more than one that is away.
        if found is None or _weight(cause) > _weight(found):
            found = cause
    return found


def _weight(cause: Cause) -> tuple[bool, bool]:
    return cause.answered, cause.certain


async def unusable(
    settings: KafkaSettings, options: Mapping[str, Any], error: BaseException
) -> BrokerError:
    """Return the error that says why no broker can be used, with the remedy: a BrokerAwayError where a try may succeed.

    Args:
        settings: of the connection.
        options: of the client that failed.
        error: its error, which is named where the probe finds no fault.
    """
    cause = await find_cause(settings, options)
    place = f"{settings.bootstrap_servers} (kafka.bootstrap_servers)"
    if cause is not None and cause.answered:
        kind = BrokerError if cause.certain else BrokerAwayError
        return kind(f"the Kafka brokers at {place} cannot be used: {cause.text}")
    what = named(error) if cause is None else cause.text
    return BrokerAwayError(f"no Kafka broker answers at {place}: {what}")


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port``; the port of Kafka where none is given."""
    address = address.strip()
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return address.strip("[]"), _DEFAULT_PORT
    return host.strip("[]"), int(port)


async def _probe(
    settings: KafkaSettings, options: Mapping[str, Any], host: str, port: int
) -> Cause | None:
    unreachable = await _try_tcp(host, port)
    if unreachable is not None:
        return Cause(answered=False, text=unreachable, certain=False)
    context: ssl.SSLContext | None = options.get("ssl_context")
    cause = None
    if context is not None:
        cause = await _try_tls(context, host, port)
    elif await _speaks_tls(host, port):
        cause = _refusal(
            f"{host}:{port} speaks TLS, kafka.security.protocol is {settings.security.protocol}; set it to "
            f"{settings.security.protocol.replace('PLAINTEXT', 'SSL')}, or use the port without TLS"
        )
    return cause or await _try_kafka(settings, options, host, port)


def _refusal(text: str) -> Cause:
    return Cause(answered=True, text=text)


def _guess(text: str) -> Cause:
    return Cause(answered=True, text=text, certain=False)


async def _try_tcp(host: str, port: int) -> str | None:
    try:
        async with asyncio.timeout(_STEP_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except socket.gaierror:
        return f"the host name {host!r} does not resolve; fix it or the DNS"
    except TimeoutError:
        return (
            f"{host}:{port} does not answer within {_STEP_TIMEOUT_S:g} s; check firewall and route"
        )
    except OSError as error:
        # With several addresses of one host asyncio joins their errors, and the number is lost.
        if error.errno == errno.ECONNREFUSED or "refused" in str(error).lower():
            return f"{host}:{port} refuses the connection; start the broker or fix the address"
        return f"{host}:{port}: {error.strerror or error}; check address and route"
    writer.close()
    return None


async def _try_tls(context: ssl.SSLContext, host: str, port: int) -> Cause | None:
    """Return what fails in the handshake; None where it succeeds."""
    try:
        async with asyncio.timeout(_STEP_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLCertVerificationError as error:
        return _refusal(_certificate_fault(error, host, port))
    except ssl.SSLError as error:
        return _tls_cause(error, host, port)
    except (OSError, EOFError, TimeoutError):
        return _guess(
            f"{host}:{port} ends the TLS handshake: it probably speaks no TLS; set kafka.security.protocol to "
            "PLAINTEXT or SASL_PLAINTEXT, or use the TLS port"
        )
    try:
        # In TLS 1.3 the broker judges our certificate after the handshake; a read sees its alert.
        async with asyncio.timeout(_ALERT_TIMEOUT_S):
            await reader.read(1)
    except ssl.SSLError as error:
        return _tls_cause(error, host, port)
    except (OSError, TimeoutError):
        return None
    finally:
        writer.transport.abort()
    return None


def _certificate_fault(error: ssl.SSLCertVerificationError, host: str, port: int) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return f"the certificate of {host}:{port} has expired; renew it on the broker"
    if code == _NOT_YET_VALID:
        return (
            f"the certificate of {host}:{port} is not valid yet; check the clocks of both machines"
        )
    if code in _WRONG_HOST:
        return (
            f"the certificate of {host}:{port} is for another host name; use a name that it holds in "
            "kafka.bootstrap_servers, or issue it for this one"
        )
    if code in _UNKNOWN_CA:
        return (
            f"the certificate of {host}:{port} is signed by an unknown CA; put that CA's certificate into the file of "
            "kafka.security.ssl_cafile"
        )
    return f"the certificate of {host}:{port} is invalid: {error.verify_message}; renew it on the broker"


def _tls_cause(error: ssl.SSLError, host: str, port: int) -> Cause:
    # The end of a stream is no alert: nobody has said anything.
    ended = isinstance(error, ssl.SSLEOFError) or "UNEXPECTED_EOF" in (error.reason or "").upper()
    return Cause(answered=True, text=_tls_fault(error, host, port), certain=not ended)


def _tls_fault(error: ssl.SSLError, host: str, port: int) -> str:
    reason = (error.reason or "").upper()
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return f"{host}:{port} requires a client certificate; set kafka.security.ssl_certfile and ssl_keyfile"
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return (
            f"{host}:{port} rejects the client certificate ({reason.lower()}); check that kafka.security.ssl_certfile "
            "is valid and signed by a CA that the broker trusts"
        )
    if "PROTOCOL_VERSION" in reason or "UNSUPPORTED_PROTOCOL" in reason:
        return f"{host}:{port} and this client share no TLS version; enable TLS 1.2 or 1.3 on the broker"
    if "WRONG_VERSION" in reason or "RECORD_LAYER" in reason or "UNEXPECTED_EOF" in reason:
        return (
            f"{host}:{port} speaks no TLS; set kafka.security.protocol to PLAINTEXT or SASL_PLAINTEXT, or use the TLS "
            "port"
        )
    return f"the TLS handshake with {host}:{port} fails ({reason.lower() or named(error)})"


async def _speaks_tls(host: str, port: int) -> bool:
    """Return whether a listener takes part in a TLS handshake, whatever its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = (
        ssl.CERT_NONE
    )  # nothing is sent: the question is only whether it speaks TLS
    try:
        async with asyncio.timeout(_STEP_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "").upper()
    except (OSError, EOFError, TimeoutError):
        return False
    writer.transport.abort()
    return True


async def _try_kafka(
    settings: KafkaSettings, options: Mapping[str, Any], host: str, port: int
) -> Cause | None:
    """Return what fails in Kafka's own protocol: versions, then SASL; None where all succeed."""
    ours = client_identity(options)
    try:
        async with asyncio.timeout(_STEP_TIMEOUT_S):
            connection = await create_conn(host, port, **ours)
    except TokenError as error:
        return _refusal(str(error))
    except (KafkaError, OSError, TimeoutError) as error:
        return await _kafka_fault(error, settings, ours, f"{host}:{port}")
    try:
        if settings.security.sasl_mechanism == "OAUTHBEARER":
            text = await _token_fault(connection, settings, f"{host}:{port}")
        elif settings.security.sasl_mechanism is not None:
            text = None
        else:
            text = await _needs_sasl(connection, settings, f"{host}:{port}")
        return None if text is None else _refusal(text)
    finally:
        connection.close()


async def _kafka_fault(
    error: Exception, settings: KafkaSettings, options: Mapping[str, Any], place: str
) -> Cause:
    security = settings.security
    # TLS 1.3: the broker judges our certificate after the handshake.
    tls = next((e for e in (error, error.__cause__, error.__context__) if _is_tls(e)), None)
    if isinstance(tls, ssl.SSLError):
        return _tls_cause(tls, *split_address(place))
    if isinstance(error, SaslAuthenticationFailed | AuthenticationFailedError):
        return _refusal(_credentials_fault(settings, place))
    if isinstance(error, UnsupportedSaslMechanismError):
        offered = await _offered_mechanisms(options, *split_address(place))
        return _refusal(
            f"{place} does not offer the SASL mechanism {security.sasl_mechanism}"
            f"{f' but {offered}' if offered else ''}; fix kafka.security.sasl_mechanism"
        )
    if isinstance(error, IllegalSaslStateError):
        return _refusal(
            f"{place} uses no SASL; set kafka.security.protocol to {security.protocol.removeprefix('SASL_')}, or use "
            "the SASL port"
        )
    if "ssl_context" in options:
        certificate = "requires a" if security.ssl_certfile is None else "rejects the"
        return _guess(
            f"{place} ends the connection after the TLS handshake: it probably {certificate} client certificate; check "
            "kafka.security.ssl_certfile and ssl_keyfile"
        )
    return _guess(
        f"{place} does not answer as a Kafka broker ({named(error)}); check that the port is a Kafka listener"
    )


def _is_tls(error: BaseException | None) -> bool:
    return isinstance(error, ssl.SSLError)


def _credentials_fault(settings: KafkaSettings, place: str) -> str:
    security = settings.security
    if security.sasl_mechanism == "OAUTHBEARER":
        source = "hook" if security.oauth_token_file is None else "file"
        return (
            f"{place} rejects the token of kafka.security.oauth_token_{source}; check its issuer, audience and "
            "expiry"
        )
    return (
        f"{place} rejects user {security.username!r} or the password ({security.sasl_mechanism}); fix "
        f"kafka.security.username and {'password' if security.password_file is None else 'password_file'}"
    )


async def _token_fault(connection: Any, settings: KafkaSettings, place: str) -> str | None:  # noqa: ANN401 - of aiokafka
    """Return that the broker rejects the token.

    It answers a bad token with a challenge instead of an error (RFC 7628), which aiokafka takes for a success. The next
    request then fails.
    """
    try:
        async with asyncio.timeout(_STEP_TIMEOUT_S):
            await connection.send(MetadataRequest([], allow_auto_topic_creation=False))
    except (KafkaError, OSError, TimeoutError):
        return _credentials_fault(settings, place)
    return None


async def _needs_sasl(connection: Any, settings: KafkaSettings, place: str) -> str | None:  # noqa: ANN401 - of aiokafka
    """Return that a listener wants SASL; a listener without SASL calls the question an illegal state."""
    with contextlib.suppress(KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(_STEP_TIMEOUT_S):
            answer = await connection.send(SaslHandShakeRequest("PLAIN"))
        if answer.error_code in {0, _UNSUPPORTED_SASL_MECHANISM}:
            wanted = f"SASL_{settings.security.protocol}"
            return (
                f"{place} requires SASL ({', '.join(answer.enabled_mechanisms)}); set kafka.security.protocol "
                f"to {wanted} with sasl_mechanism, username and password"
            )
    return None


async def _offered_mechanisms(options: Mapping[str, Any], host: str, port: int) -> str:
    bare = {name: value for name, value in options.items() if not name.startswith("sasl_")}
    bare["security_protocol"] = str(options["security_protocol"]).removeprefix("SASL_")
    try:
        async with asyncio.timeout(_STEP_TIMEOUT_S):
            connection = await create_conn(host, port, **bare)
            try:
                answer = await connection.send(SaslHandShakeRequest("?"))
            finally:
                connection.close()
    except (KafkaError, OSError, TimeoutError):
        return ""
    return ", ".join(answer.enabled_mechanisms)
