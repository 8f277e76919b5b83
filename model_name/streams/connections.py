"""How a broker is reached: addresses from the config, secrets from the environment, errors that say what to do."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors
from pydantic import FilePath, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from model_name.errors import ConfigError, DependencyError, NotFoundError

CONNECT_SECONDS = 10.0
ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:,\[\]/]+):([0-9]{1,5})")
ENVIRONMENT = "MODEL_NAME_KAFKA_"
QUICK = {"metrics_enabled": False}  # ours are of records and batches; those of the client cost a tenth of its time

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class Security(BaseSettings):
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
        env_prefix=ENVIRONMENT, env_ignore_empty=True, extra="ignore", case_sensitive=False, env_file=None
    )

    security_protocol: Protocol | None = None
    sasl_mechanism: Mechanism = "SCRAM-SHA-512"
    username: str | None = None
    password: SecretStr | None = None
    ca: FilePath | None = None
    certificate: FilePath | None = None
    key: FilePath | None = None
    key_password: SecretStr | None = None

    @classmethod
    def read(cls) -> "Security":
        """The settings of the environment.

        Raises:
            ConfigError: One of them is wrong, or one is missing beside another.
        """
        try:
            found = cls()
        except ValidationError as err:
            first = err.errors()[0]
            name = f"{ENVIRONMENT}{first['loc'][0]}".upper()
            raise ConfigError(f"{name}: {first['msg']}") from err
        for one, other in (("username", "password"), ("certificate", "key")):
            if (getattr(found, one) is None) != (getattr(found, other) is None):
                names = " and ".join(f"{ENVIRONMENT}{name}".upper() for name in (one, other))
                raise ConfigError(f"{names} belong together", hint="set both, or neither")
        if found.protocol.startswith("SASL") and found.username is None:
            raise ConfigError(
                f"{ENVIRONMENT}SECURITY_PROTOCOL is {found.protocol}, and there is no user",
                hint=f"set {ENVIRONMENT}USERNAME and {ENVIRONMENT}PASSWORD",
            )
        return found

    @property
    def protocol(self) -> Protocol:
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
                "sasl_plain_password": self.password.get_secret_value() if self.password else None,
            }
        if self.protocol.endswith("SSL"):
            files = {"ssl_cafile": self.ca, "ssl_certfile": self.certificate, "ssl_keyfile": self.key}
            found |= {name: str(path) for name, path in files.items() if path}
            if self.key_password:
                found["ssl_password"] = self.key_password.get_secret_value()
        return found


class Connection:
    """Makes clients of one cluster."""

    def __init__(self, bootstrap_servers: str, security: Security | None = None) -> None:
        """Take the addresses.

        Args:
            bootstrap_servers: `HOST:PORT`, several separated by commas.
            security: How; by default as the environment says.

        Raises:
            ConfigError: An address is none, or the environment is wrong.
        """
        self.servers = [part.strip() for part in bootstrap_servers.split(",")]
        for server in self.servers:
            found = ADDRESS.fullmatch(server)
            if found is None or not 0 < int(found[2]) < 65536:
                raise ConfigError(f"bootstrap_servers: {server!r} is not HOST:PORT", hint="e.g. localhost:9092")
        self.security = security or Security.read()

    @cached_property
    def options(self) -> dict[str, Any]:
        """The arguments that all clients share."""
        return {
            "bootstrap_servers": self.servers,
            "bootstrap_timeout_ms": int(CONNECT_SECONDS * 1000),
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
        return self._made(lambda: KafkaConsumer(*topics, **self.options, **QUICK | fixed | options))

    def producer(self, **options: Any) -> KafkaProducer:
        """A producer whose records all replicas have.

        Raises:
            DependencyError: The cluster cannot be reached, or refuses.
        """
        return self._made(lambda: KafkaProducer(**self.options, **QUICK | {"acks": "all"} | options))

    def partitions(self, topics: Iterable[str]) -> dict[str, int]:
        """How many partitions each topic has. No topic comes into being by asking.

        Raises:
            DependencyError: The cluster cannot be reached, or refuses.
            NotFoundError: There is no such topic, or it may not be seen.
        """
        admin = self._made(lambda: KafkaAdminClient(**self.options))
        try:
            with translated(self.servers):
                known = {found["name"]: len(found["partitions"]) for found in admin.describe_topics()}
        finally:
            admin.close()
        for topic in topics:
            if topic not in known:
                raise UnknownTopicError(
                    f"{topic}: {', '.join(self.servers)} has no such topic, or does not show it to this user",
                    hint="create it, or check its name: " + (", ".join(sorted(known)[:20]) or "there are no topics"),
                )
        return {topic: known[topic] for topic in topics}

    def _made(self, make: Callable[[], Any]) -> Any:
        """A client that has reached the cluster."""
        with overheard() as causes:
            try:
                return make()
            except (OSError, ValueError) as err:  # certificates that cannot be read, addresses that are none
                raise ConfigError(f"the client of Kafka cannot be made: {err}") from err
            except kafka_errors.KafkaError as err:
                raise unreachable(self.servers, causes[-1] if causes else err) from err


class UnknownTopicError(NotFoundError):
    """A topic that is needed does not exist."""

    exit_code = DependencyError.exit_code


@contextmanager
def translated(servers: Iterable[str]) -> Iterator[None]:
    """Turn errors of the client into ours.

    Raises:
        DependencyError: There was one.
    """
    with overheard() as causes:
        try:
            yield
        except kafka_errors.KafkaError as err:
            is_vague = isinstance(err, kafka_errors.KafkaTimeoutError) and causes
            raise unreachable(servers, causes[-1] if is_vague else err) from err


def unreachable(servers: Iterable[str], cause: BaseException) -> DependencyError:
    """What to say of a cluster that does not do what it is asked."""
    words = describe(cause)
    hints: Mapping[type[BaseException], str] = {
        kafka_errors.SaslAuthenticationFailedError: f"check {ENVIRONMENT}USERNAME, {ENVIRONMENT}PASSWORD and "
        f"{ENVIRONMENT}SASL_MECHANISM",
        kafka_errors.UnsupportedSaslMechanismError: f"set {ENVIRONMENT}SASL_MECHANISM to one that it has",
        kafka_errors.AuthorizationError: "have the user be allowed to, by ACLs of the cluster",
        kafka_errors.UnsupportedVersionError: "a broker without transactions takes `delivery: at_least_once`",
    }
    default = f"check the addresses, and {ENVIRONMENT}SECURITY_PROTOCOL where the listener asks for TLS or SASL"
    hint = next((hint for kind, hint in hints.items() if isinstance(cause, kind)), default)
    return DependencyError(f"Kafka at {', '.join(servers)}: {words}", hint=hint)


def describe(cause: BaseException) -> str:
    """An error of the client in a line."""
    return " ".join(f"{type(cause).__name__.removesuffix('Error')}: {cause}".split())[:500]


@contextmanager
def overheard() -> Iterator[list[BaseException]]:
    """The errors that the client only tells its log, while it tries again: who gives up says that time is up."""
    heard: list[BaseException] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            given = record.args if isinstance(record.args, tuple) else ()
            heard.extend(arg for arg in given if isinstance(arg, kafka_errors.KafkaError | OSError))

    listener, library = Listener(logging.WARNING), logging.getLogger("kafka")
    library.addHandler(listener)
    try:
        yield heard
    finally:
        library.removeHandler(listener)
