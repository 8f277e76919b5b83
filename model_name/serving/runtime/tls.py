"""TLS certificates of a server, and their reload when the files change."""

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

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

    def ssl_context(self) -> ssl.SSLContext:
        """Load the certificates for REST."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        if self.client_ca is not None:
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Load the certificates for gRPC."""
        ca = None if self.client_ca is None else self.client_ca.read_bytes()
        pair = [(self.key.read_bytes(), self.certificate.read_bytes())]
        return grpc.ssl_server_credentials(pair, root_certificates=ca, require_client_auth=ca is not None)


class CertificateReloader:
    """Reloads the certificate of REST when its files have changed, as cert-manager and Kubernetes secrets rotate it.

    It polls the files: a volume of Kubernetes replaces a symbolic link, which a watch on the file does not see.
    """

    def __init__(self, tls: TlsConfig, context: ssl.SSLContext) -> None:
        """Start with the current files as those that the context has loaded."""
        self.tls = tls
        self.context = context
        self._loaded_signature = self._signature()

    def reload_if_changed(self) -> None:
        """Reload the certificate if its files have changed; new connections get it, and an invalid one is logged."""
        signature = self._signature()
        if signature == self._loaded_signature:
            return
        self._loaded_signature = signature
        try:
            self.context.load_cert_chain(self.tls.certificate, self.tls.key)
        except OSError as err:  # `ssl.SSLError` is one; key and certificate may be replaced one by one
            logger.warning("the TLS certificate is not reloaded: %s", err)
        else:
            logger.info("the TLS certificate is reloaded")

    def _signature(self) -> object:
        return [file_signature(path.parent, [path.name]) for path in (self.tls.certificate, self.tls.key)]
