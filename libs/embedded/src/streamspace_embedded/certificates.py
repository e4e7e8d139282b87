"""Certificates for servers that only our own programs meet: an authority of the installation.

Whoever runs a certificate authority of their own needs none of this; the programs take
any certificate that their `ca_file` vouches for.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFETIME = timedelta(days=3650)
SERVER_LIFETIME = timedelta(days=730)
RENEW_BEFORE = timedelta(days=180)
"""A run of the secrets command within this time of the end makes a new one."""
_CLOCKS_DIFFER = timedelta(hours=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, as PEM."""

    certificate: str
    key: str


def new_authority(now: datetime) -> Pair:
    """An authority that signs servers' certificates and nothing else."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("StreamSpace installation")
    built = (
        _builder(name, name, key.public_key(), now, AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(_key_id(key.public_key()), critical=False)
    )
    return _pair(built.sign(key, hashes.SHA256()), key)


def new_server(authority: Pair, names: Sequence[str], now: datetime) -> Pair:
    """A certificate for all `names`: hosts (`*.` in front stands for one label) and addresses.

    It serves and it dials: servers of a cluster show it to each other.
    """
    issuer = x509.load_pem_x509_certificate(authority.certificate.encode())
    issuer_key = _private(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    built = (
        _builder(_name(names[0]), issuer.subject, key.public_key(), now, SERVER_LIFETIME)
        .add_extension(
            x509.SubjectAlternativeName([_called(name) for name in names]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(_key_id(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    return _pair(built.sign(issuer_key, hashes.SHA256()), key)


def is_current(server: Pair, authority: Pair, names: Sequence[str], now: datetime) -> bool:
    """Whether a server's certificate is the authority's, for just these names, for long enough."""
    certificate = x509.load_pem_x509_certificate(server.certificate.encode())
    issuer = x509.load_pem_x509_certificate(authority.certificate.encode())
    told = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    key_id = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    issuer_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        list(told) == [_called(name) for name in names]
        and key_id.key_identifier == issuer_id.key_identifier
        and certificate.not_valid_after_utc - RENEW_BEFORE > now
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - _CLOCKS_DIFFER)
        .not_valid_after(now.astimezone(UTC) + lifetime)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _called(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _key_id(public: ec.EllipticCurvePublicKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(public)


def _private(pair: Pair) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pair.key.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("the authority's key is not one of ours")
    return key


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
    )
