"""TLS certificates of a server, and their reload when the files change."""

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import grpc

from model_name.serving.runtime.file_signature import file_signature

logger = logging.getLogger("model_name.serving")


@dataclass(frozen=True)
class TlsConfig:
    """TLS certificates of a server.

    Attributes:
        certificate: Certificate of the server with its chain, in PEM.
        key: Private key of the certificate.
        client_ca: Certificate authority of the clients; None if clients need no certificate.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def files(self) -> list[Path]:
        """Files of the certificates."""
        return [self.certificate, self.key, *([] if self.client_ca is None else [self.client_ca])]

    def ssl_context(self) -> ssl.SSLContext:
        """Load the certificates for REST."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        if self.client_ca is not None:
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def grpc_configuration(self) -> grpc.ServerCertificateConfiguration:
        """Load the certificates for gRPC."""
        ca = None if self.client_ca is None else self.client_ca.read_bytes()
        pair = [(self.key.read_bytes(), self.certificate.read_bytes())]
        return grpc.ssl_server_certificate_configuration(pair, root_certificates=ca)


class Certificates(NamedTuple):
    """Loaded certificates.

    Attributes:
        context: Certificates for REST.
        configuration: The same certificates for gRPC.
    """

    context: ssl.SSLContext
    configuration: grpc.ServerCertificateConfiguration


class CertificateReloader:
    """Reloads the certificates when their files have changed, as cert-manager and Kubernetes secrets rotate them.

    It polls the files: a volume of Kubernetes replaces a symbolic link, which a watch on the file does not report.

    Attributes:
        tls: Files of the certificates.
        loaded: Certificates of new connections.
    """

    def __init__(self, tls: TlsConfig) -> None:
        """Load the certificates."""
        self.tls = tls
        self._loaded_signature = self._signature()
        self.loaded = self._load()
        self._fetched = self.loaded.configuration

    def reload_if_changed(self) -> bool:
        """Reload the certificates if their files have changed; return whether there are new ones.

        Invalid certificates are logged, and the old ones stay in use.
        """
        signature = self._signature()
        if signature == self._loaded_signature:
            return False
        self._loaded_signature = signature
        try:
            loaded = self._load()
        except OSError as err:  # `ssl.SSLError` is one; key and certificate may be replaced one by one
            logger.warning("the TLS certificate is not reloaded: %s", err)
            return False
        if self._signature() != signature:  # REST and gRPC may have read different files: the next call loads them
            return False
        self.loaded = loaded
        logger.info("the TLS certificate is reloaded")
        return True

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Create credentials of a gRPC server, which give each new connection the certificates that are loaded then."""
        needs_client = self.tls.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(
            self.loaded.configuration, self._fetch, require_client_authentication=needs_client
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return new certificates once; gRPC calls it at the start of each connection, in a thread of its own."""
        configuration = self.loaded.configuration
        if configuration is self._fetched:
            return None
        self._fetched = configuration
        return configuration

    def _load(self) -> Certificates:
        return Certificates(self.tls.ssl_context(), self.tls.grpc_configuration())

    def _signature(self) -> object:
        return [file_signature(path.parent, [path.name]) for path in self.tls.files]
