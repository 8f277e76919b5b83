"""Create users, passwords and certificates for one secured cluster."""

import datetime
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_kafka.properties import BrokerSettings

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    IssuedCertificate = tuple[x509.Certificate, EllipticCurvePrivateKey]

LOGIN_MODULES = "org.apache.kafka.common.security"
VALID_DAYS = 30


@dataclass(frozen=True)
class ClusterSecurity:
    """Credentials of a secured cluster.

    The user has all permissions, with its password and with its certificate; the stranger has a password and no
    permissions.

    Attributes:
        folder: Folder of the PEM files.
        user: Name of the user, which is also the common name of the client certificate.
        password: Password of the user.
        stranger: Name of the stranger.
        stranger_password: Password of the stranger.
    """

    folder: Path
    user: str = "engineer"
    password: str = field(default_factory=secrets.token_hex, repr=False)
    stranger: str = "stranger"
    stranger_password: str = field(default_factory=secrets.token_hex, repr=False)

    @property
    def ca(self) -> Path:
        """Certificate of the authority that signs the others."""
        return self.folder / "ca.pem"

    @property
    def client_certificate(self) -> Path:
        """Client certificate for the mTLS listener."""
        return self.folder / "client.pem"

    @property
    def client_key(self) -> Path:
        """Unencrypted key of the client certificate."""
        return self.folder / "client-key.pem"

    @property
    def keystore(self) -> Path:
        """Key and certificate of the brokers in one file, as their PEM keystore requires."""
        return self.folder / "server.pem"

    @property
    def users(self) -> dict[str, str]:
        """Passwords by user."""
        return {self.user: self.password, self.stranger: self.stranger_password}

    def broker_settings(self) -> BrokerSettings:
        """Build the security settings of the brokers."""
        users = " ".join(f'user_{name}="{password}"' for name, password in self.users.items())
        plain, scram = f"{LOGIN_MODULES}.plain.PlainLoginModule", f"{LOGIN_MODULES}.scram.ScramLoginModule"
        return {
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.clients.plain.sasl.jaas.config": f"{plain} required {users};",
            "listener.name.clients.scram-sha-256.sasl.jaas.config": f"{scram} required;",
            "listener.name.clients.scram-sha-512.sasl.jaas.config": f"{scram} required;",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca),
            "listener.name.mtls.ssl.client.auth": "required",
            "listener.name.mtls.ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            # The brokers connect to each other over the loopback interface without authentication, as ANONYMOUS.
            "super.users": f"User:{self.user};User:ANONYMOUS",
        }

    def scram_options(self) -> list[str]:
        """Build the options with which `kafka-storage format` creates the users."""
        mechanisms = ("SCRAM-SHA-256", "SCRAM-SHA-512")
        logins = [f"[name={name},password={password}]" for name, password in self.users.items()]
        return [word for one in mechanisms for login in logins for word in ("--add-scram", f"{one}={login}")]

    def client_options(self, mechanism: str = "SCRAM-SHA-512") -> dict[str, Any]:
        """Build the options of a client of kafka-python that authenticates by a password."""
        return {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": mechanism,
            "sasl_plain_username": self.user,
            "sasl_plain_password": self.password,
            "ssl_cafile": str(self.ca),
        }

    def mtls_client_options(self) -> dict[str, Any]:
        """Build the options of a client that authenticates by a certificate."""
        return {
            "security_protocol": "SSL",
            "ssl_cafile": str(self.ca),
            "ssl_certfile": str(self.client_certificate),
            "ssl_keyfile": str(self.client_key),
        }

    def write_files(self) -> None:
        """Issue the certificates and write the PEM files, readable by the owner only."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ca = issue_certificate("Kafka of this machine", ca=None, hosts=())
        server = issue_certificate("localhost", ca=ca, hosts=("localhost", "127.0.0.1"))
        client = issue_certificate(self.user, ca=ca, hosts=())
        for file, text in {
            self.ca: pem_certificate(ca),
            self.keystore: pem_key(server) + pem_certificate(server) + pem_certificate(ca),
            self.client_certificate: pem_certificate(client),
            self.client_key: pem_key(client),
        }.items():
            file.touch(mode=0o600)
            file.write_bytes(text)


def issue_certificate(name: str, ca: "IssuedCertificate | None", hosts: Sequence[str]) -> "IssuedCertificate":
    """Create a key and its certificate.

    Args:
        name: Common name of the subject.
        ca: Authority that signs the certificate; None for a self-signed authority.
        hosts: Names and addresses of a server; empty for a client.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signer = (ca[0].subject, ca[1]) if ca else (subject, key)
    today = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))  # tolerates clock skew
        .not_valid_after(today + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=ca is None, path_length=None), critical=True)
        .add_extension(key_usage(is_ca=ca is None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if ca:
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    if hosts:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([general_name(one) for one in hosts]), critical=False
        )
    return builder.sign(signer, hashes.SHA256()), key


def key_usage(*, is_ca: bool) -> "x509.KeyUsage":
    """Build the key usage of an authority, or of a server or client."""
    from cryptography import x509

    other_usages = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign")
    unused = dict.fromkeys((*other_usages, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(digital_signature=not is_ca, key_cert_sign=is_ca, **unused)


def general_name(name: str) -> "x509.GeneralName":
    """Convert a name or an address of a server to its form in a certificate."""
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def pem_certificate(issued: "IssuedCertificate") -> bytes:
    """Encode the certificate as PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return issued[0].public_bytes(Encoding.PEM)


def pem_key(issued: "IssuedCertificate") -> bytes:
    """Encode the key as PEM in PKCS #8, the format that Kafka reads."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return issued[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
