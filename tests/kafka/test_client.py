"""Connections to a secured broker, and the errors of clients that it rejects."""

import logging
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from kafka import errors as kafka_errors
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

from model_name.errors import ConfigError, DependencyError
from model_name.kafka import client
from model_name.kafka.client import ENV_PREFIX, KafkaClientFactory, KafkaSecuritySettings
from tests.support.kafka_cluster import new_topic, read_values, send_values
from tests.support.kafka_workers import MakeWorkerGroup
from tests.support.worker_processes import VALUES, WorkerGroup

MAX_SECONDS = 20.0  # until a worker gives up
Env = dict[str, str]


def password_env(cluster: Any, **changes: Any) -> Env:
    """Build the environment of a worker that authenticates by a password."""
    return to_env({"username": cluster.user, "password": cluster.password, "ca": cluster.ca} | changes)


def certificate_env(cluster: Any) -> Env:
    """Build the environment of a worker that authenticates by a certificate."""
    return to_env({"ca": cluster.ca, "certificate": cluster.client_certificate, "key": cluster.client_key})


def to_env(settings: Mapping[str, Any]) -> Env:
    """Convert settings to environment variables."""
    return {f"{ENV_PREFIX}{name}".upper(): str(value) for name, value in settings.items()}


def run_until_exit(group: WorkerGroup, *settings: str, within: float = MAX_SECONDS) -> tuple[int, str]:
    """Run a worker that is rejected, and return its exit code and its log, which must not contain the password."""
    worker, started = group.start(*settings), time.monotonic()
    code = worker.wait(2 * MAX_SECONDS)
    log = group.read_log(worker)
    assert time.monotonic() - started < within, log
    password = group.env.get(f"{ENV_PREFIX}PASSWORD")
    assert not password or password not in log
    assert "Traceback" not in log
    return code, log


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def env(self, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """`env(name=value)`: set environment variables."""
        (workplace / "none.pem").write_text("no certificate")

        def set_env(**settings: str) -> None:
            for name, value in to_env(settings).items():
                monkeypatch.setenv(name, value)

        return set_env

    @pytest.mark.parametrize(
        ("settings", "protocol"),
        [
            pytest.param({}, "PLAINTEXT", id="no settings"),
            pytest.param({"username": "u", "password": "p"}, "SASL_SSL", id="a password requires TLS"),
            pytest.param(
                {"username": "u", "password": "p", "security_protocol": "SASL_PLAINTEXT"}, "SASL_PLAINTEXT",
                id="unless set otherwise",
            ),
            pytest.param({"security_protocol": "SSL"}, "SSL", id="TLS alone"),
            pytest.param({"username": ""}, "PLAINTEXT", id="empty is unset"),
        ],
    )  # fmt: skip
    def test_the_protocol_follows_from_the_settings(self, env: Any, settings: Env, protocol: str) -> None:
        env(**settings)
        assert KafkaSecuritySettings.from_env().client_options()["security_protocol"] == protocol

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            pytest.param({"username": "u"}, "USERNAME and .*PASSWORD belong together", id="no password"),
            pytest.param({"password": "secret"}, "USERNAME and .*PASSWORD belong together", id="no user"),
            pytest.param({"certificate": "none.pem"}, "CERTIFICATE and .*KEY belong", id="no key"),
            pytest.param({"security_protocol": "SASL_SSL"}, "there is no user", id="SASL without a user"),
            pytest.param({"security_protocol": "TLS"}, "SECURITY_PROTOCOL: Input should be", id="an unknown protocol"),
            pytest.param({"sasl_mechanism": "GSSAPI"}, "SASL_MECHANISM: Input should be", id="an unknown mechanism"),
            pytest.param({"ca": "gone.pem"}, "CA: Path does not point to a file", id="a missing file"),
            pytest.param({"ca": "none.pem"}, "CA: .*no certificate", id="an invalid certificate"),
            pytest.param({"certificate": "none.pem", "key": "none.pem"}, "CERTIFICATE, .*KEY", id="an invalid key"),
        ],
    )
    def test_wrong_settings_are_reported_at_once(self, env: Any, settings: Env, message: str) -> None:
        env(**settings)
        with pytest.raises(ConfigError, match=message) as raised:
            KafkaSecuritySettings.from_env()
        assert "secret" not in str(raised.value)
        assert raised.value.exit_code == 2

    @pytest.mark.parametrize("servers", ["", "localhost", "localhost:0", "localhost:99999", "a:1,,b:2", "http://a:1"])
    def test_an_invalid_address_is_rejected(self, servers: str) -> None:
        with pytest.raises(ConfigError, match="HOST:PORT"):
            KafkaClientFactory(servers)


@pytest.mark.kafka
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", None])
def test_password_and_certificate_authenticate(secured_broker: Any, monkeypatch: Any, mechanism: Any) -> None:
    # Given the environment of a known user
    topic = new_topic(secured_broker, partitions=3)
    env = password_env(secured_broker, sasl_mechanism=mechanism) if mechanism else certificate_env(secured_broker)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    # When a client connects
    clients = KafkaClientFactory(secured_broker.bootstrap if mechanism else secured_broker.bootstrap_mtls)
    # Then it can produce and consume
    assert clients.partition_counts([topic]) == {topic: 3}
    send_values(clients.options, topic, [b"one"])
    assert read_values(clients.options, topic, 1) == [b"one"]


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.parametrize("is_mtls", [pytest.param(False, id="SCRAM over TLS"), pytest.param(True, id="mTLS")])
def test_workers_of_a_secured_cluster_deliver_exactly_once(
    secured_broker: Any, make_worker_group: MakeWorkerGroup, is_mtls: bool
) -> None:
    # Given two workers, of which one is killed
    env = certificate_env(secured_broker) if is_mtls else password_env(secured_broker)
    bootstrap = secured_broker.bootstrap_mtls if is_mtls else secured_broker.bootstrap
    client_options = secured_broker.mtls_client_options() if is_mtls else secured_broker.client_options()
    security = {name: value for name, value in client_options.items() if name != "bootstrap_servers"}
    group = make_worker_group(secured_broker, env=env, bootstrap=bootstrap)
    victim, other = group.start(), group.start()
    for worker in (victim, other):
        group.wait_until_assigned(worker)
    with group.producing(rate=300, **security):
        time.sleep(2)
        group.kill(victim)
        time.sleep(3)
    # When all records are committed
    group.wait_until_committed(**security)
    assert group.stop(other) < 10
    # Then the verifier, with the same credentials, finds one result per record
    report = group.verify()
    assert report["exit"] == 0, report
    if not is_mtls:
        assert secured_broker.password not in group.read_log(other) + group.read_log(victim)


@pytest.mark.kafka
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"password": "wrong"}, id="a wrong password"),
        pytest.param({"username": "nobody"}, id="an unknown user"),
        pytest.param({"password": "wrong", "sasl_mechanism": "PLAIN"}, id="a wrong password in PLAIN"),
    ],
)
def test_rejected_credentials_are_reported(
    secured_broker: Any, make_worker_group: MakeWorkerGroup, changes: Env
) -> None:
    # Given wrong credentials
    group = make_worker_group(secured_broker, env=password_env(secured_broker, **changes))
    # When a worker starts, then it exits with the reason; the client may only see that the broker disconnects
    code, log = run_until_exit(group)
    assert code == 5
    assert re.search("invalid credentials|Invalid username or password|socket disconnected", log)
    for name in ("USERNAME", "PASSWORD", "SASL_MECHANISM"):
        assert f"{ENV_PREFIX}{name}" in log


def test_an_error_that_no_retry_cures_ends_the_attempt() -> None:
    # Given errors that the client logs between two attempts
    client_log = logging.getLogger("kafka.net.manager")
    with client.capture_client_errors() as captured:
        client_log.warning("%s: %s", "a", kafka_errors.KafkaConnectionError("later"))
        with pytest.raises(kafka_errors.SaslAuthenticationFailedError):
            client_log.warning("%s: %s", "a", kafka_errors.SaslAuthenticationFailedError("never"))
    # Then it is the cause of the timeout, whatever came after it
    captured.append(kafka_errors.KafkaConnectionError("socket disconnected"))
    error = client.cluster_error(["a:1"], client.root_cause(kafka_errors.KafkaTimeoutError("late"), captured))
    assert error.message == "Kafka at a:1: SaslAuthenticationFailed: never"


UNREACHABLE: dict[str, tuple[Callable[[Any], tuple[str, Env]], str, str]] = {
    "an untrusted CA": (
        lambda cluster: (cluster.bootstrap, to_env({"username": "u", "password": "p"})),
        "CERTIFICATE_VERIFY_FAILED", f"set {ENV_PREFIX}CA",
    ),
    "no TLS": (lambda cluster: (cluster.bootstrap, {}), "", f"{ENV_PREFIX}SECURITY_PROTOCOL"),
    "no password": (
        lambda cluster: (cluster.bootstrap, to_env({"ca": cluster.ca})), "", f"{ENV_PREFIX}SECURITY_PROTOCOL",
    ),
    "no certificate": (
        lambda cluster: (cluster.bootstrap_mtls, to_env({"ca": cluster.ca})), "", f"{ENV_PREFIX}CERTIFICATE",
    ),
    "no broker": (lambda _: ("127.0.0.1:1", {}), "ECONNREFUSED", "check the addresses"),
    "an unknown host": (lambda _: ("nowhere.invalid:9092", {}), "DNS", "check the addresses"),
}  # fmt: skip


@pytest.mark.kafka
@pytest.mark.parametrize("name", UNREACHABLE)
def test_an_unreachable_cluster_is_reported_with_the_reason(
    secured_broker: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # Given a client that the listener rejects
    configure, message, hint = UNREACHABLE[name]
    servers, env = configure(secured_broker)
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    # When it connects, then the error has the reason and a hint
    with pytest.raises(DependencyError) as raised:
        KafkaClientFactory(servers, bootstrap_timeout_seconds=1.0).partition_counts(["any"])
    assert message in raised.value.message
    assert hint in raised.value.hint
    assert raised.value.exit_code == 5


@pytest.mark.kafka
@pytest.mark.slow
def test_a_worker_gives_up_an_unreachable_cluster(secured_broker: Any, make_worker_group: MakeWorkerGroup) -> None:
    # When a worker starts without a broker, then it exits in time with the reason
    code, log = run_until_exit(make_worker_group(secured_broker, env={}, bootstrap="127.0.0.1:1"))
    assert code == 5
    assert "ECONNREFUSED" in log


@pytest.mark.kafka
@pytest.mark.parametrize("topic", ["input", "output", "dead_letter"])
def test_a_missing_topic_is_reported(secured_broker: Any, make_worker_group: MakeWorkerGroup, topic: str) -> None:
    # Given a group with a deleted topic
    group = make_worker_group(secured_broker, env=password_env(secured_broker))
    name = getattr(group, topic)
    with secured_broker.admin() as admin:
        admin.delete_topics([name])
    # When a worker starts, then it exits and names the topic
    code, log = run_until_exit(group)
    assert code == 5
    assert f"{name}: " in log
    assert "create it" in log


def allow(kind: ResourceType, name: str, operation: ACLOperation) -> ACL:
    return ACL("User:stranger", "*", operation, ACLPermissionType.ALLOW, ResourcePattern(kind, name))


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("lacking", "message", "delivery"),
    [
        pytest.param("input", "READ the input", "exactly_once", id="reading the input"),
        pytest.param("output", "WRITE where the results", "exactly_once", id="writing the output"),
        pytest.param("output", "WRITE where the results", "at_least_once", id="writing the output, at least once"),
        pytest.param("dead_letter", "WRITE where the results", "exactly_once", id="writing dead letters"),
        pytest.param("dead_letter", "WRITE where the results", "at_least_once", id="writing them, at least once"),
        pytest.param("group", "READ the group", "exactly_once", id="the group"),
        pytest.param("instance", "transactional ids", "exactly_once", id="the transactional id"),
        pytest.param("instance", "", "at_least_once", id="a permission that it does not need"),
    ],
)
def test_a_missing_permission_is_reported(
    secured_broker: Any, make_worker_group: MakeWorkerGroup, lacking: str, message: str, delivery: str
) -> None:
    # Given a user with all permissions but one, and a valid or an invalid record
    env = password_env(secured_broker, username=secured_broker.stranger, password=secured_broker.stranger_password)
    group = make_worker_group(secured_broker, env=env, delivery=delivery, partitions=1)
    topics = (group.input, group.output, group.dead_letter)
    permissions = {
        "input": allow(ResourceType.TOPIC, group.input, ACLOperation.READ),
        "output": allow(ResourceType.TOPIC, group.output, ACLOperation.WRITE),
        "dead_letter": allow(ResourceType.TOPIC, group.dead_letter, ACLOperation.WRITE),
        "group": allow(ResourceType.GROUP, group.name, ACLOperation.READ),
        "instance": allow(ResourceType.TRANSACTIONAL_ID, group.name, ACLOperation.WRITE),
    }
    granted = [permission for name, permission in permissions.items() if name != lacking]
    granted += [allow(ResourceType.TOPIC, topic, ACLOperation.DESCRIBE) for topic in topics]
    with secured_broker.admin() as admin:
        admin.create_acls(granted)
    send_values(secured_broker.client_options(), group.input, [b"bad"] if lacking == "dead_letter" else VALUES)
    # When a worker starts
    if message:
        code, log = run_until_exit(group, f"job.instance={group.name}")
        # Then it exits with the missing permission
        assert code == 5
        assert message in log
        return
    # Or it runs, where it does not need the permission
    group.start(f"job.instance={group.name}")
    assert len(read_values(secured_broker.client_options(), group.output, 3)) == 3
