"""Users, passwords and certificates of a secured cluster, made for it alone."""

import datetime
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_kafka.properties import Settings

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    Signed = tuple[x509.Certificate, EllipticCurvePrivateKey]

LOGINS = "org.apache.kafka.common.security"
VALID_DAYS = 30


@dataclass(frozen=True)
class Security:
    """Who may come in, and what shows it.

    The user may do everything, by its password and by its certificate; the stranger has a password and may do nothing.

    Attributes:
        folder: Of the PEM files.
        user: Its name, which is also the common name of the client certificate.
        password: Its password.
        stranger: Somebody without rights.
        stranger_password: The password of that one.
    """

    folder: Path
    user: str = "engineer"
    password: str = field(default_factory=secrets.token_hex, repr=False)
    stranger: str = "stranger"
    stranger_password: str = field(default_factory=secrets.token_hex, repr=False)

    @property
    def ca(self) -> Path:
        """The certificate that signed all others."""
        return self.folder / "ca.pem"

    @property
    def client_certificate(self) -> Path:
        """The certificate that a client shows to the listener that asks for one."""
        return self.folder / "client.pem"

    @property
    def client_key(self) -> Path:
        """Its key, without a password."""
        return self.folder / "client-key.pem"

    @property
    def keystore(self) -> Path:
        """The key and the certificate of the brokers in one file, as they take it."""
        return self.folder / "server.pem"

    @property
    def users(self) -> dict[str, str]:
        """Each password by its user."""
        return {self.user: self.password, self.stranger: self.stranger_password}

    def settings(self) -> Settings:
        """What the brokers have to know."""
        users = " ".join(f'user_{name}="{password}"' for name, password in self.users.items())
        plain, scram = f"{LOGINS}.plain.PlainLoginModule", f"{LOGINS}.scram.ScramLoginModule"
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
            # The brokers themselves, which know each other by nothing but the loopback, are anonymous.
            "super.users": f"User:{self.user};User:ANONYMOUS",
        }

    def scram(self) -> list[str]:
        """The options that have a log directory formatted with the users."""
        mechanisms = ("SCRAM-SHA-256", "SCRAM-SHA-512")
        logins = [f"[name={name},password={password}]" for name, password in self.users.items()]
        return [word for one in mechanisms for login in logins for word in ("--add-scram", f"{one}={login}")]

    def connection(self, mechanism: str = "SCRAM-SHA-512") -> dict[str, Any]:
        """What a client of kafka-python needs besides the addresses, to come with a password."""
        return {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": mechanism,
            "sasl_plain_username": self.user,
            "sasl_plain_password": self.password,
            "ssl_cafile": str(self.ca),
        }

    def connection_mtls(self) -> dict[str, Any]:
        """The same, to come with a certificate."""
        return {
            "security_protocol": "SSL",
            "ssl_cafile": str(self.ca),
            "ssl_certfile": str(self.client_certificate),
            "ssl_keyfile": str(self.client_key),
        }

    def write(self) -> None:
        """Make the certificates and write the PEM files, for the owner alone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ca = sign("Kafka of this machine", ca=None, hosts=())
        server = sign("localhost", ca=ca, hosts=("localhost", "127.0.0.1"))
        client = sign(self.user, ca=ca, hosts=())
        for file, text in {
            self.ca: pem_certificate(ca),
            self.keystore: pem_key(server) + pem_certificate(server) + pem_certificate(ca),
            self.client_certificate: pem_certificate(client),
            self.client_key: pem_key(client),
        }.items():
            file.touch(mode=0o600)
            file.write_bytes(text)


def sign(name: str, ca: "Signed | None", hosts: Sequence[str]) -> "Signed":
    """A key and its certificate.

    Args:
        name: The common name.
        ca: Who signs; None makes a CA that signs itself.
        hosts: The names and addresses of a server; none for a client.
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
        .not_valid_before(today - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(today + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=ca is None, path_length=None), critical=True)
        .add_extension(usage(is_ca=ca is None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if ca:
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([host(one) for one in hosts]), critical=False)
    return builder.sign(signer, hashes.SHA256()), key


def usage(*, is_ca: bool) -> "x509.KeyUsage":
    """What a key may be used for: to sign others, or to show who one is."""
    from cryptography import x509

    rest = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign")
    never = dict.fromkeys((*rest, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(digital_signature=not is_ca, key_cert_sign=is_ca, **never)


def host(name: str) -> "x509.GeneralName":
    """A name or an address of a server, as a certificate holds it."""
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def pem_certificate(signed: "Signed") -> bytes:
    """The certificate as PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return signed[0].public_bytes(Encoding.PEM)


def pem_key(signed: "Signed") -> bytes:
    """The key as PEM, in PKCS #8, which is what Kafka reads."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return signed[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
