"""Makes certificates for tests: a root CA, an intermediate CA that it signed, and certificates of the intermediate.

Needs ``cryptography``, which comes with ``stream-guard[broker]``. The keys lie unencrypted in the given folder, and the
CAs are known to no one else: for tests only.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from stream_guard.core.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_CA_LIFE: Final = dt.timedelta(days=30)
# Clocks of containers differ by seconds.
_BACKDATED: Final = dt.timedelta(hours=1)
_OWNER_ONLY: Final = 0o600


@dataclass(slots=True, frozen=True)
class Certificate:
    """The files of one certificate, in PEM.

    Attributes:
        certificate_file: the certificate, and the intermediate CA's after it.
        key_file: its private key (PKCS #8).
    """

    certificate_file: Path
    key_file: Path


class CertificateAuthority:
    """A root CA with one intermediate CA.

    Attributes:
        ca_file: the root's certificate (PEM); who trusts it trusts all that is issued here.
    """

    def __init__(self, folder: Path, name: str = "Stream Guard test CA") -> None:
        """Make the keys and write the root's certificate into ``folder``.

        Raises:
            BrokerError: ``cryptography`` is not installed.
        """
        try:
            from cryptography.hazmat.primitives.asymmetric import ec
        except ImportError as error:
            message = "certificates need cryptography; install the extra: pip install 'stream-guard[broker]'"
            raise BrokerError(message) from error
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        now = dt.datetime.now(dt.UTC)
        root_key, self._key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        life = (now - _BACKDATED, now + _CA_LIFE)
        root = _sign(name, root_key.public_key(), name, root_key, life, path_length=1)
        self._issuer = f"{name}, intermediate"
        self._intermediate = _sign(
            self._issuer, self._key.public_key(), name, root_key, life, path_length=0
        )
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(_pem(root))

    def issue(
        self,
        name: str,
        *,
        hosts: Sequence[str] = (),
        valid_from: dt.datetime | None = None,
        valid_until: dt.datetime | None = None,
        file_name: str | None = None,
    ) -> Certificate:
        """Write a certificate and its key; files of the same name are replaced.

        Args:
            name: the subject's common name.
            hosts: host names and IP addresses that it is for.
            valid_from: with a time zone; an hour ago if unset.
            valid_until: with a time zone; in 30 days if unset.
            file_name: of both files, without their ends; ``name`` if unset.
        """
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        now = dt.datetime.now(dt.UTC)
        life = (valid_from or now - _BACKDATED, valid_until or now + _CA_LIFE)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _sign(name, key.public_key(), self._issuer, self._key, life, hosts=hosts)
        stem = self._folder / (file_name or name)
        made = Certificate(stem.with_name(f"{stem.name}.crt"), stem.with_name(f"{stem.name}.key"))
        made.key_file.touch(mode=_OWNER_ONLY)
        made.key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        made.certificate_file.write_bytes(_pem(certificate) + _pem(self._intermediate))
        return made


def _sign(
    subject: str,
    public_key: Any,  # noqa: ANN401 - cryptography is optional
    issuer: str,
    issuer_key: Any,  # noqa: ANN401
    life: tuple[dt.datetime, dt.datetime],
    *,
    path_length: int | None = None,
    hosts: Sequence[str] = (),
) -> Any:  # noqa: ANN401
    """Return a certificate (RFC 5280); a CA's, if it has a path length."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import NameOID

    def named(common_name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])

    built = (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(life[0])
        .not_valid_after(life[1])
        .add_extension(
            x509.BasicConstraints(ca=path_length is not None, path_length=path_length),
            critical=True,
        )
    )
    if hosts:
        names = [_general_name(host) for host in hosts]
        built = built.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return built.sign(issuer_key, hashes.SHA256())


def _general_name(host: str) -> Any:  # noqa: ANN401
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: Any) -> bytes:  # noqa: ANN401
    from cryptography.hazmat.primitives import serialization

    return bytes(certificate.public_bytes(serialization.Encoding.PEM))
