"""How a broker is reached: addresses from the config, secrets from the environment, errors that say what to do."""

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
ERROR_PREFIX = re.compile(r"^(\[Error -?\d+\] ?|\w+Error(: |$))+")  # of the words of the client's errors
BASE_OPTIONS = {"metrics_enabled": False}  # ours are of records and batches; those of the client cost a tenth of its time

NON_RETRYABLE = (kafka_errors.SaslAuthenticationFailedError, kafka_errors.UnsupportedSaslMechanismError)
"""What no further attempt makes better."""

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class KafkaSecuritySettings(BaseSettings):
    """What the environment says of a broker: `MODEL_NAME_KAFKA_` and a name of these; empty ones count as unset.

    Attributes:
        security_protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL; by default what the others call for.
        sasl_mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
        username: Of SASL.
        password: Of SASL.
        ca: A PEM file of who signs the certificates of the brokers; by default whom the machine trusts.
        certificate: A PEM file that the broker is shown (mTLS).
        key: The PEM file of its key.
        key_password: Of that file, where it has one.
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
    def read(cls) -> "KafkaSecuritySettings":
        """The settings of the environment.

        Raises:
            ConfigError: One of them is wrong, or one is missing beside another.
        """
        try:
            found = cls()
        except ValidationError as err:
            first = err.errors()[0]
            name = f"{ENV_PREFIX}{first['loc'][0]}".upper()
            raise ConfigError(f"{name}: {first['msg']}") from err
        for one, other in (("username", "password"), ("certificate", "key")):
            if (getattr(found, one) is None) != (getattr(found, other) is None):
                names = " and ".join(f"{ENV_PREFIX}{name}".upper() for name in (one, other))
                raise ConfigError(f"{names} belong together", hint="set both, or neither")
        if found.protocol.startswith("SASL") and found.username is None:
            raise ConfigError(
                f"{ENV_PREFIX}SECURITY_PROTOCOL is {found.protocol}, and there is no user",
                hint=f"set {ENV_PREFIX}USERNAME and {ENV_PREFIX}PASSWORD",
            )
        if found.protocol.endswith("SSL"):
            found.check_files()
        return found

    def check_files(self) -> None:
        """Read the PEM files, which the client would only do when it connects, again and again.

        Raises:
            ConfigError: One is none.
        """
        names, context = "CA", ssl.create_default_context()
        try:
            if self.ca:
                context.load_verify_locations(self.ca)
            if self.certificate:
                names = f"CERTIFICATE, {ENV_PREFIX}KEY and {ENV_PREFIX}KEY_PASSWORD"
                # Without a password, a key that has one would be asked for on the terminal.
                context.load_cert_chain(self.certificate, self.key, self.secret("key_password") or "")
        except OSError as err:  # of which errors of TLS are
            raise ConfigError(f"{ENV_PREFIX}{names}: {err}", hint="PEM files that belong together are needed") from err

    def secret(self, name: str) -> str | None:
        """One of the secrets in the clear."""
        found: SecretStr | None = getattr(self, name)
        return found.get_secret_value() if found else None

    @property
    def protocol(self) -> SecurityProtocol:
        """What is spoken: never a password in the clear unless it is asked for."""
        if self.security_protocol:
            return self.security_protocol
        if self.username is not None:
            return "SASL_SSL"
        return "SSL" if self.ca or self.certificate else "PLAINTEXT"

    def options(self) -> dict[str, Any]:
        """The arguments of a client."""
        found: dict[str, Any] = {"security_protocol": self.protocol}
        if self.protocol.startswith("SASL"):
            found |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.secret("password"),
            }
        if self.protocol.endswith("SSL"):
            files = {"ssl_cafile": self.ca, "ssl_certfile": self.certificate, "ssl_keyfile": self.key}
            found |= {name: str(path) for name, path in files.items() if path}
            if self.key_password:
                found["ssl_password"] = self.secret("key_password")
        return found


class KafkaClientFactory:
    """Makes clients of one cluster."""

    def __init__(self, bootstrap_servers: str, security: KafkaSecuritySettings | None = None) -> None:
        """Take the addresses.

        Args:
            bootstrap_servers: `HOST:PORT`, several separated by commas.
            security: How; by default as the environment says.

        Raises:
            ConfigError: An address is none, or the environment is wrong.
        """
        self.servers = [part.strip() for part in bootstrap_servers.split(",")]
        for server in self.servers:
            found = ADDRESS_PATTERN.fullmatch(server)
            if found is None or not 0 < int(found[2]) < 65536:
                raise ConfigError(f"bootstrap_servers: {server!r} is not HOST:PORT", hint="e.g. localhost:9092")
        self.security = security or KafkaSecuritySettings.read()

    @cached_property
    def options(self) -> dict[str, Any]:
        """The arguments that all clients share."""
        return {
            "bootstrap_servers": self.servers,
            "bootstrap_timeout_ms": int(BOOTSTRAP_TIMEOUT_SECONDS * 1000),
            "request_timeout_ms": 20_000,
            "reconnect_backoff_max_ms": 1000,  # a broker that was restarted is found again within a second
            **self.security.options(),
        }

    def consumer(self, *topics: str, **options: Any) -> KafkaConsumer:
        """A consumer.

        Raises:
            DependencyError: The cluster cannot be reached, or refuses.
        """
        fixed = {"enable_auto_commit": False, "allow_auto_create_topics": False, "isolation_level": "read_committed"}
        return self._made(lambda: KafkaConsumer(*topics, **self.options, **BASE_OPTIONS | fixed | options))

    def producer(self, **options: Any) -> KafkaProducer:
        """A producer whose records all replicas have.

        Raises:
            DependencyError: The cluster cannot be reached, or refuses.
        """
        return self._made(lambda: KafkaProducer(**self.options, **BASE_OPTIONS | {"acks": "all"} | options))

    def partitions(self, topics: Iterable[str]) -> dict[str, int]:
        """How many partitions each topic has. No topic comes into being by asking.

        Raises:
            DependencyError: The cluster cannot be reached, or refuses.
            NotFoundError: There is no such topic, or it may not be seen.
        """
        admin = self._made(lambda: KafkaAdminClient(**self.options))
        try:
            with translate_errors(self.servers):
                known = {found["name"]: len(found["partitions"]) for found in admin.describe_topics()}
        finally:
            admin.close()
        for topic in topics:
            if topic not in known:
                shown = sorted(name for name in known if not name.startswith("__"))[:20]  # Kafka's own have two
                raise UnknownTopicError(
                    f"{topic}: {', '.join(self.servers)} has no such topic, or does not show it to this user",
                    hint="create it, let the user see it (DESCRIBE), or check its name"
                    + (did_you_mean(topic, shown) if shown else "; there is none that is shown"),
                )
        return {topic: known[topic] for topic in topics}

    def _made(self, make: Callable[[], Any]) -> Any:
        """A client that has reached the cluster."""
        with capture_client_errors() as causes:
            try:
                return make()
            except (OSError, ValueError) as err:  # certificates that cannot be read, addresses that are none
                raise ConfigError(f"the client of Kafka cannot be made: {err}") from err
            except kafka_errors.KafkaError as err:
                raise cluster_error(self.servers, root_cause(err, causes)) from err


class UnknownTopicError(NotFoundError):
    """A topic that is needed does not exist."""

    exit_code = DependencyError.exit_code


@contextmanager
def translate_errors(servers: Iterable[str]) -> Iterator[None]:
    """Turn errors of the client into ours.

    Raises:
        DependencyError: There was one.
    """
    with capture_client_errors() as causes:
        try:
            yield
        except kafka_errors.KafkaError as err:
            raise cluster_error(servers, root_cause(err, causes)) from err


def cluster_error(servers: Iterable[str], cause: BaseException) -> DependencyError:
    """What to say of a cluster that does not do what it is asked."""
    words = format_error(cause)
    by_words = (hint for part, hint in HINTS_BY_TEXT.items() if part in words)
    by_kind = (hint for kind, hint in HINTS_BY_TYPE.items() if isinstance(cause, kind))
    hint = next(
        chain(by_words, by_kind), f"check the addresses, and {PROTOCOL_VARIABLE} where the listener asks for TLS or SASL"
    )
    return DependencyError(f"Kafka at {', '.join(servers)}: {words}", hint=hint)


def format_error(cause: BaseException) -> str:
    """An error of the client in a line."""
    kind, words = type(cause).__name__.removesuffix("Error"), ERROR_PREFIX.sub("", " ".join(f"{cause}".split()))
    return f"{kind}: {words}"[:500] if words else kind


def root_cause(error: BaseException, causes: Sequence[BaseException]) -> BaseException:
    """Why there was an error: what was overheard, where it only says that time is up."""
    if not isinstance(error, kafka_errors.KafkaTimeoutError):
        return error
    told = [one for one in causes if not isinstance(one, kafka_errors.KafkaTimeoutError)]
    return next((one for one in told if isinstance(one, NON_RETRYABLE)), told[-1] if told else error)


@contextmanager
def capture_client_errors() -> Iterator[list[BaseException]]:
    """The errors that the client only tells its log, while it tries again: who gives up says that time is up.

    Where there is nothing to hope for, to be told of it ends the attempt. It is not always told: the client may lose
    the answer of a broker that hangs up after it.
    """
    heard: list[BaseException] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            given = record.args if isinstance(record.args, tuple) else ()
            found = [arg for arg in given if isinstance(arg, kafka_errors.KafkaError | OSError)]
            heard.extend(found)
            if record.name == "kafka.net.manager" and record.levelno == logging.WARNING:  # between two attempts
                for hopeless in (one for one in found if isinstance(one, NON_RETRYABLE)):
                    raise hopeless

    listener, library = Listener(logging.WARNING), logging.getLogger("kafka")
    library.addHandler(listener)
    try:
        yield heard
    finally:
        library.removeHandler(listener)


def silence_client_logs() -> None:
    """Let the client write nothing: what matters is told by us, once."""
    library = logging.getLogger("kafka")
    library.propagate = False
    library.addHandler(logging.NullHandler())
