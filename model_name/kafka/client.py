"""Create clients of a Kafka cluster and translate their errors.

Addresses come from the config, credentials from the environment. All uses of private parts of kafka-python are here:
`force_close_producer` and `capture_client_errors`.
"""

import logging
import re
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from typing import Any, Literal

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors
from pydantic import FilePath, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from typing_extensions import override

from model_name.core.schemas.strict_models import did_you_mean
from model_name.errors import ConfigError, DependencyError, NotFoundError

BOOTSTRAP_TIMEOUT_SECONDS = 10.0
ADDRESS_PATTERN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:,\[\]/]+):([0-9]{1,5})")
ENV_PREFIX = "MODEL_NAME_KAFKA_"
LOGIN_VARIABLES = f"{ENV_PREFIX}USERNAME, {ENV_PREFIX}PASSWORD and {ENV_PREFIX}SASL_MECHANISM"
PROTOCOL_VARIABLE = f"{ENV_PREFIX}SECURITY_PROTOCOL"
CERTIFICATE_HINT = f"set {ENV_PREFIX}CERTIFICATE and {ENV_PREFIX}KEY to what the listener trusts"
HINTS_BY_TEXT = {
    "socket disconnected": f"it hung up, as on who may not come in: check {LOGIN_VARIABLES}, and {PROTOCOL_VARIABLE}",
    "CERTIFICATE_VERIFY_FAILED": f"set {ENV_PREFIX}CA to a PEM file of who signs the certificates of the brokers",
    "BAD_CERTIFICATE": CERTIFICATE_HINT,
    "CERTIFICATE_REQUIRED": CERTIFICATE_HINT,
}
HINTS_BY_TYPE: Mapping[type[BaseException], str] = {
    kafka_errors.SaslAuthenticationFailedError: f"check {LOGIN_VARIABLES}",
    kafka_errors.UnsupportedSaslMechanismError: f"set {ENV_PREFIX}SASL_MECHANISM to one that it has",
    kafka_errors.TopicAuthorizationFailedError: "have an ACL allow the user to READ the input, or to WRITE where the "
    "results and the dead letters go",
    kafka_errors.GroupAuthorizationFailedError: "have an ACL allow the user to READ the group",
    kafka_errors.TransactionalIdAuthorizationFailedError: "have an ACL allow the user to WRITE transactional ids with "
    "the prefix of the group's name, or as the `instance` of the worker says",
    kafka_errors.AuthorizationError: "have an ACL allow the user what it asks for",
    kafka_errors.InconsistentGroupProtocolError: "the group has members of another kind: name a `group` of its own",
    kafka_errors.InvalidTransactionTimeoutError: "lower `transaction_seconds`, or raise "
    "transaction.max.timeout.ms of the brokers",
    kafka_errors.InvalidSessionTimeoutError: "choose `session_seconds` between group.min.session.timeout.ms and "
    "group.max.session.timeout.ms of the brokers",
    kafka_errors.UnsupportedVersionError: "a broker without transactions takes `delivery: at_least_once`",
}
ERROR_PREFIX = re.compile(r"^(\[Error -?\d+\] ?|\w+Error(: |$))+")  # class names that the client puts before a message
BASE_OPTIONS = {"metrics_enabled": False}  # the metrics of the client cost a tenth of its time

NON_RETRYABLE = (kafka_errors.SaslAuthenticationFailedError, kafka_errors.UnsupportedSaslMechanismError)
"""Errors that end the attempts to connect."""

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class KafkaSecuritySettings(BaseSettings):
    """Credentials and protocol from the environment: `MODEL_NAME_KAFKA_` and the name of a field; empty means unset.

    Attributes:
        security_protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL; by default the one that the other settings
            require.
        sasl_mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
        username: User of SASL.
        password: Password of SASL.
        ca: PEM file with the authority that signs the certificates of the brokers; by default the authorities that the
            machine trusts.
        certificate: PEM file with the certificate of the client, for mTLS.
        key: PEM file with the key of the certificate.
        key_password: Password of the key file, if it is encrypted.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="ignore", case_sensitive=False, env_file=None
    )

    security_protocol: SecurityProtocol | None = None
    sasl_mechanism: SaslMechanism = "SCRAM-SHA-512"
    username: str | None = None
    password: SecretStr | None = None
    ca: FilePath | None = None
    certificate: FilePath | None = None
    key: FilePath | None = None
    key_password: SecretStr | None = None

    @classmethod
    def from_env(cls) -> "KafkaSecuritySettings":
        """Load the settings from the environment and check them.

        Raises:
            ConfigError: A setting is wrong, or is missing beside another one.
        """
        try:
            settings = cls()
        except ValidationError as err:
            first = err.errors()[0]
            name = f"{ENV_PREFIX}{first['loc'][0]}".upper()
            raise ConfigError(f"{name}: {first['msg']}") from err
        for pair in (("username", "password"), ("certificate", "key")):
            if len({getattr(settings, name) is None for name in pair}) > 1:
                names = " and ".join(f"{ENV_PREFIX}{name}".upper() for name in pair)
                raise ConfigError(f"{names} belong together", hint="set both, or neither")
        if settings.protocol.startswith("SASL") and settings.username is None:
            raise ConfigError(
                f"{ENV_PREFIX}SECURITY_PROTOCOL is {settings.protocol}, and there is no user",
                hint=f"set {ENV_PREFIX}USERNAME and {ENV_PREFIX}PASSWORD",
            )
        if settings.protocol.endswith("SSL"):
            settings.check_pem_files()
        return settings

    def check_pem_files(self) -> None:
        """Load the PEM files once; the client would load them at each attempt to connect, and retry the failures.

        Raises:
            ConfigError: A file is no PEM file, or key and certificate do not match.
        """
        names, context = "CA", ssl.create_default_context()
        try:
            if self.ca:
                context.load_verify_locations(self.ca)
            if self.certificate:
                names = f"CERTIFICATE, {ENV_PREFIX}KEY and {ENV_PREFIX}KEY_PASSWORD"
                # Without a password OpenSSL would prompt for that of an encrypted key on the terminal.
                context.load_cert_chain(self.certificate, self.key, self.secret_value("key_password") or "")
        except OSError as err:  # includes ssl.SSLError
            raise ConfigError(f"{ENV_PREFIX}{names}: {err}", hint="PEM files that belong together are needed") from err

    def secret_value(self, name: str) -> str | None:
        """Return a secret in plain text, or None if it is unset."""
        secret: SecretStr | None = getattr(self, name)
        return secret.get_secret_value() if secret else None

    @property
    def protocol(self) -> SecurityProtocol:
        """Security protocol. A password is sent without TLS only if the protocol is set to SASL_PLAINTEXT."""
        if self.security_protocol:
            return self.security_protocol
        if self.username is not None:
            return "SASL_SSL"
        return "SSL" if self.ca or self.certificate else "PLAINTEXT"

    def client_options(self) -> dict[str, Any]:
        """Build the security options of a client of kafka-python."""
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.protocol.startswith("SASL"):
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.secret_value("password"),
            }
        if self.protocol.endswith("SSL"):
            files = {"ssl_cafile": self.ca, "ssl_certfile": self.certificate, "ssl_keyfile": self.key}
            options |= {name: str(path) for name, path in files.items() if path}
            if self.key_password:
                options["ssl_password"] = self.secret_value("key_password")
        return options


class KafkaClientFactory:
    """Creates consumers and producers of one cluster.

    Attributes:
        servers: Addresses `HOST:PORT` of the cluster.
        security: Credentials and protocol.
        bootstrap_timeout_seconds: Time after which an attempt to reach the cluster is given up.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        security: KafkaSecuritySettings | None = None,
        *,
        bootstrap_timeout_seconds: float = BOOTSTRAP_TIMEOUT_SECONDS,
    ) -> None:
        """Check the addresses and load the credentials.

        Args:
            bootstrap_servers: Addresses `HOST:PORT`, separated by commas.
            security: Credentials and protocol; by default those of the environment.
            bootstrap_timeout_seconds: Time after which an attempt to reach the cluster is given up.

        Raises:
            ConfigError: An address is not HOST:PORT, or the environment is wrong.
        """
        self.servers = [part.strip() for part in bootstrap_servers.split(",")]
        for server in self.servers:
            match = ADDRESS_PATTERN.fullmatch(server)
            if match is None or not 0 < int(match[2]) < 65536:
                raise ConfigError(f"bootstrap_servers: {server!r} is not HOST:PORT", hint="e.g. localhost:9092")
        self.security = security or KafkaSecuritySettings.from_env()
        self.bootstrap_timeout_seconds = bootstrap_timeout_seconds

    @cached_property
    def options(self) -> dict[str, Any]:
        """Options that all clients share."""
        return {
            "bootstrap_servers": self.servers,
            "bootstrap_timeout_ms": int(self.bootstrap_timeout_seconds * 1000),
            "request_timeout_ms": 20_000,
            "reconnect_backoff_max_ms": 1000,  # a restarted broker is reached again within a second
            **self.security.client_options(),
        }

    def create_consumer(self, *topics: str, **options: Any) -> KafkaConsumer:
        """Create a consumer of committed records, without automatic commits.

        Raises:
            DependencyError: The cluster cannot be reached, or rejects a request.
        """
        defaults = {"enable_auto_commit": False, "allow_auto_create_topics": False, "isolation_level": "read_committed"}
        return self._connect(lambda: KafkaConsumer(*topics, **self.options, **BASE_OPTIONS | defaults | options))

    def create_producer(self, **options: Any) -> KafkaProducer:
        """Create a producer whose records are acknowledged by all in-sync replicas.

        Raises:
            DependencyError: The cluster cannot be reached, or rejects a request.
        """
        return self._connect(lambda: KafkaProducer(**self.options, **BASE_OPTIONS | {"acks": "all"} | options))

    def partition_counts(self, topics: Iterable[str]) -> dict[str, int]:
        """Look up the number of partitions of each topic. The request does not create topics.

        Raises:
            DependencyError: The cluster cannot be reached, or rejects a request.
            NotFoundError: A topic does not exist, or the user may not see it.
        """
        admin = self._connect(lambda: KafkaAdminClient(**self.options))
        try:
            with translate_errors(self.servers):
                counts = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics()}
        finally:
            admin.close()
        for topic in topics:
            if topic not in counts:
                visible = sorted(name for name in counts if not name.startswith("__"))[:20]  # no internal topics
                raise UnknownTopicError(
                    f"{topic}: {', '.join(self.servers)} has no such topic, or does not show it to this user",
                    hint="create it, let the user see it (DESCRIBE), or check its name"
                    + (did_you_mean(topic, visible) if visible else "; there is none that is shown"),
                )
        return {topic: counts[topic] for topic in topics}

    def _connect(self, create: Callable[[], Any]) -> Any:
        """Create a client that has reached the cluster."""
        with capture_client_errors() as causes:
            try:
                return create()
            except (OSError, ValueError) as err:  # an unreadable certificate, a malformed address
                raise ConfigError(f"the client of Kafka cannot be made: {err}") from err
            except kafka_errors.KafkaError as err:
                raise cluster_error(self.servers, root_cause(err, causes)) from err


class UnknownTopicError(NotFoundError):
    """A required topic does not exist."""

    exit_code = DependencyError.exit_code


@contextmanager
def translate_errors(servers: Iterable[str]) -> Iterator[None]:
    """Translate errors of the client to errors of this package.

    Raises:
        DependencyError: The client raised an error.
    """
    with capture_client_errors() as causes:
        try:
            yield
        except kafka_errors.KafkaError as err:
            raise cluster_error(servers, root_cause(err, causes)) from err


def cluster_error(servers: Iterable[str], cause: BaseException) -> DependencyError:
    """Build the error of a cluster that cannot be reached or rejects a request, with a hint for its cause."""
    message = format_error(cause)
    by_text = (hint for text, hint in HINTS_BY_TEXT.items() if text in message)
    by_type = (hint for error_type, hint in HINTS_BY_TYPE.items() if isinstance(cause, error_type))
    default = f"check the addresses, and {PROTOCOL_VARIABLE} where the listener asks for TLS or SASL"
    hint = next(chain(by_text, by_type), default)
    return DependencyError(f"Kafka at {', '.join(servers)}: {message}", hint=hint)


def format_error(cause: BaseException) -> str:
    """Format an error of the client as one line."""
    name, text = type(cause).__name__.removesuffix("Error"), ERROR_PREFIX.sub("", " ".join(f"{cause}".split()))
    return f"{name}: {text}"[:500] if text else name


def root_cause(error: BaseException, causes: Sequence[BaseException]) -> BaseException:
    """Find the cause of an error: that of a timeout is among the captured errors."""
    if not isinstance(error, kafka_errors.KafkaTimeoutError):
        return error
    captured = [cause for cause in causes if not isinstance(cause, kafka_errors.KafkaTimeoutError)]
    last = captured[-1] if captured else error
    return next((cause for cause in captured if isinstance(cause, NON_RETRYABLE)), last)


@contextmanager
def capture_client_errors() -> Iterator[list[BaseException]]:
    """Capture the errors that the client only logs while it retries; in the end it merely raises a timeout.

    An error that no retry can cure ends the attempt at once. Capturing is not reliable: the client may lose the
    response of a broker that disconnects after it.
    """
    captured: list[BaseException] = []

    class ErrorHandler(logging.Handler):
        @override
        def emit(self, record: logging.LogRecord) -> None:
            args = record.args if isinstance(record.args, tuple) else ()
            errors = [arg for arg in args if isinstance(arg, kafka_errors.KafkaError | OSError)]
            captured.extend(errors)
            if record.name == "kafka.net.manager" and record.levelno == logging.WARNING:  # between two attempts
                for error in errors:
                    if isinstance(error, NON_RETRYABLE):
                        raise error

    handler, library = ErrorHandler(logging.WARNING), logging.getLogger("kafka")
    library.addHandler(handler)
    try:
        yield captured
    finally:
        library.removeHandler(handler)


def force_close_producer(producer: KafkaProducer) -> None:
    """Close a producer whose `close` has raised: its flush failed, so that its thread and its connections remain.

    There is no public method for this. Left open, the producer would try to close once more when it is collected.
    """
    producer._sender.force_close()  # noqa: SLF001
    producer._closed = True  # noqa: SLF001


def silence_client_logs() -> None:
    """Discard the logs of the client; its errors are raised and logged by this package."""
    library = logging.getLogger("kafka")
    library.propagate = False
    library.addHandler(logging.NullHandler())
