"""Secures an embedded broker: TLS, passwords, tokens, client certificates and access control lists, all real.

The plain listener stays, for the test itself: its user is a super user. All that is secured is configuration of Apache
Kafka: PEM files for TLS (KIP-651), SCRAM users written when the storage is formatted (KIP-900), tokens checked against
a JWKS file (KIP-768), and re-authentication (KIP-368).
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from stream_guard.core.errors import BrokerError
from stream_guard.testing.broker.certificates import Certificate, CertificateAuthority

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["BrokerSecurity", "NodeSecurity", "Secured", "SecuredListener"]

MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
AUDIENCE: Final = "kafka"
ISSUER: Final = "https://issuer.test"
_LOGIN: Final = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "OAUTHBEARER": "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule",
}
_VALIDATOR: Final = (
    "org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler"
)
# They have a meaning in JAAS, in Java's properties or in StorageTool's --add-scram.
_RESERVED: Final = frozenset('"\\,=[];\n')


@dataclass(slots=True, frozen=True)
class SecuredListener:
    """One more listener of the broker, always with TLS.

    Attributes:
        name: letters and digits, such as ``SASL``.
        mechanisms: of SASL, for SASL_SSL; none for SSL.
        certificate: the broker's on this listener; one for 127.0.0.1 and localhost if unset.
        client_certificates: without SASL, whether a client must show a certificate.
        advertised_ports: the port that each broker tells its clients, in the order of the brokers. Unset, it is the
            listener's own. A proxy between client and broker listens there, and forwards to :meth:`Secured.ports`.
    """

    name: str
    mechanisms: Sequence[str] = ()
    certificate: Certificate | None = None
    client_certificates: bool = True
    advertised_ports: Sequence[int] = ()


@dataclass(slots=True, frozen=True)
class BrokerSecurity:
    """How an embedded broker is secured, besides its plain listener.

    Attributes:
        users: passwords by user, for PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
        acls: deny whatever no access control list allows; the plain listener may do everything.
        reauthentication_ms: after this time a SASL connection must authenticate again, or is closed; 0: never.
        listeners: the secured ones: ``SASL`` with all four mechanisms, and ``MTLS`` with client certificates.
        authority: signs all certificates; a new one if unset.
    """

    users: Mapping[str, str] = field(default_factory=dict)
    acls: bool = False
    reauthentication_ms: int = 0
    listeners: Sequence[SecuredListener] = (
        SecuredListener("SASL", MECHANISMS),
        SecuredListener("MTLS"),
    )
    authority: CertificateAuthority | None = None

    def __post_init__(self) -> None:
        for user, password in self.users.items():
            if _RESERVED & set(user + password):
                message = f"user {user!r}: name and password must have none of {''.join(sorted(_RESERVED))!r}"
                raise BrokerError(message)
        for listener in self.listeners:
            unknown = set(listener.mechanisms) - set(MECHANISMS)
            if unknown or not listener.name.isalnum():
                message = f"listener {listener.name!r}: use letters and digits, and only {', '.join(MECHANISMS)}"
                raise BrokerError(message)


class Secured:
    """What a client needs for a secured broker: addresses, certificates and tokens.

    Attributes:
        security: as it was asked for.
        authority: issues more certificates, for clients.
    """

    def __init__(self, security: BrokerSecurity, folder: Path) -> None:
        """Make keys and certificates in ``folder``."""
        self.security = security
        self.authority = security.authority or CertificateAuthority(folder)
        self._folder = folder
        self._key = _rsa_key()
        (folder / "jwks.json").write_text(json.dumps(_jwks(self._key)), encoding="utf-8")
        self._ports: dict[str, list[int]] = {}
        shared: Certificate | None = None
        for listener in security.listeners:
            certificate = listener.certificate
            if certificate is None:
                shared = shared or self.authority.issue("broker", hosts=("127.0.0.1", "localhost"))
                certificate = shared
            # Kafka reads key and chain from one file.
            store = self._store(listener)
            store.touch(mode=0o600)
            store.write_bytes(
                certificate.key_file.read_bytes() + certificate.certificate_file.read_bytes()
            )

    @property
    def ca_file(self) -> Path:
        """The root CA's certificate (PEM), for clients to trust."""
        return self.authority.ca_file

    def servers(self, listener: str) -> str:
        """Return ``host:port[,host:port]`` of a secured listener as advertised, for any Kafka client."""
        (asked,) = (one for one in self.security.listeners if one.name == listener)
        ports = asked.advertised_ports or self._ports[listener]
        return ",".join(f"127.0.0.1:{port}" for port in ports)

    def ports(self, listener: str) -> list[int]:
        """Return the ports on which the brokers themselves listen, in the order of the brokers."""
        return list(self._ports[listener])

    def certificate(self, user: str) -> Certificate:
        """Return a new client certificate for the listener ``MTLS``; the broker knows its owner as ``User:<user>``."""
        return self.authority.issue(user)

    def token(self, user: str, *, life_s: float = 3_600) -> str:
        """Return a token for OAUTHBEARER: a JSON Web Token (RFC 7519), signed with RS256, of the issuer in JWKS."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        now_s = int(time.time())
        head = {"alg": "RS256", "typ": "JWT", "kid": "test"}
        claims = {
            "sub": user,
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": now_s,
            "exp": now_s + int(life_s),
        }
        text = ".".join(_base64(json.dumps(part).encode()) for part in (head, claims))
        signature = self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{text}.{_base64(signature)}"

    def node(self, ports: Sequence[int], number: int = 0) -> NodeSecurity:
        """Return what one broker of the cluster is started with.

        Args:
            ports: of its secured listeners.
            number: of the broker, from 0.
        """
        properties = self._common()
        listeners = self.security.listeners
        addresses = [
            f"{listener.name}://127.0.0.1:{port}"
            for listener, port in zip(listeners, ports, strict=True)
        ]
        advertised = [
            f"{listener.name}://127.0.0.1:{listener.advertised_ports[number]}"
            if listener.advertised_ports
            else address
            for listener, address in zip(listeners, addresses, strict=True)
        ]
        protocols = []
        for listener in self.security.listeners:
            protocols.append(f"{listener.name}:{'SASL_SSL' if listener.mechanisms else 'SSL'}")
            properties |= self._of_listener(listener)
        jwks = (self._folder / "jwks.json").as_uri()
        return NodeSecurity(
            properties,
            addresses,
            advertised,
            protocols,
            # Kafka reads tokens' keys only from where the process is allowed to.
            [f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={jwks}"],
            [
                word
                for user, password in self.security.users.items()
                for number in ("256", "512")
                for word in (
                    "--add-scram",
                    f"SCRAM-SHA-{number}=[name={user},password={password}]",
                )
            ],
        )

    def set_servers(self, ports: Sequence[Sequence[int]]) -> None:
        """Note the ports of all brokers, each in the order of the listeners."""
        for number, listener in enumerate(self.security.listeners):
            self._ports[listener.name] = [of[number] for of in ports]

    def _store(self, listener: SecuredListener) -> Path:
        return self._folder / f"listener-{listener.name}.pem"

    def _common(self) -> dict[str, object]:
        properties: dict[str, object] = {
            "connections.max.reauth.ms": self.security.reauthentication_ms,
            # A certificate's user is its common name.
            "ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/,DEFAULT",
            "connection.failed.authentication.delay.ms": 0,
        }
        if self.security.acls:
            properties |= {
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
            }
        return properties

    def _of_listener(self, listener: SecuredListener) -> dict[str, object]:
        prefix = f"listener.name.{listener.name.lower()}"
        asks = listener.client_certificates and not listener.mechanisms
        found: dict[str, object] = {
            f"{prefix}.ssl.keystore.type": "PEM",
            f"{prefix}.ssl.keystore.location": self._store(listener),
            f"{prefix}.ssl.truststore.type": "PEM",
            f"{prefix}.ssl.truststore.location": self.ca_file,
            f"{prefix}.ssl.client.auth": "required" if asks else "none",
        }
        if listener.mechanisms:
            found[f"{prefix}.sasl.enabled.mechanisms"] = ",".join(listener.mechanisms)
        for mechanism in listener.mechanisms:
            words = [f"{_LOGIN[mechanism]} required"]
            if mechanism == "PLAIN":
                words += [f'user_{user}="{pw}"' for user, pw in self.security.users.items()]
            its = f"{prefix}.{mechanism.lower()}"
            found[f"{its}.sasl.jaas.config"] = " ".join(words) + ";"
            if mechanism == "OAUTHBEARER":
                found[f"{its}.sasl.server.callback.handler.class"] = _VALIDATOR
                jwks = (self._folder / "jwks.json").as_uri()
                found[f"{its}.sasl.oauthbearer.jwks.endpoint.url"] = jwks
                found[f"{its}.sasl.oauthbearer.expected.audience"] = AUDIENCE
                found[f"{its}.sasl.oauthbearer.expected.issuer"] = ISSUER
        return found


@dataclass(slots=True, frozen=True)
class NodeSecurity:
    """What one secured broker is started with.

    Attributes:
        properties: of its configuration.
        addresses: its secured listeners, as ``NAME://host:port``.
        advertised: what clients are told in their place, in the same form.
        protocols: their security protocols, as ``NAME:PROTOCOL``.
        java_options: for Java.
        format_words: for the command that formats its storage.
    """

    properties: Mapping[str, object]
    addresses: Sequence[str]
    advertised: Sequence[str]
    protocols: Sequence[str]
    java_options: Sequence[str]
    format_words: Sequence[str]


def _rsa_key() -> Any:  # noqa: ANN401 - cryptography is optional
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def _jwks(key: Any) -> dict[str, object]:  # noqa: ANN401
    """Return the public key as a JSON Web Key Set (RFC 7517)."""
    numbers = key.public_key().public_numbers()

    def of(number: int) -> str:
        return _base64(number.to_bytes((number.bit_length() + 7) // 8))

    return {
        "keys": [
            {
                "kty": "RSA",
                "kid": "test",
                "use": "sig",
                "alg": "RS256",
                "n": of(numbers.n),
                "e": of(numbers.e),
            }
        ]
    }


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
