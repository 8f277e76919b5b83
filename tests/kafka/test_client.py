"""How a secured broker is reached, and what a worker says that may not."""

import logging
import os
import re
import subprocess
import sys
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

MOST_SECONDS = 20.0  # until a worker has given up
Env = dict[str, str]


def by_password(cluster: Any, **changes: Any) -> Env:
    """The environment of a worker that comes with a password."""
    return named({"username": cluster.user, "password": cluster.password, "ca": cluster.ca} | changes)


def by_certificate(cluster: Any) -> Env:
    """The environment of a worker that shows a certificate."""
    return named({"ca": cluster.ca, "certificate": cluster.client_certificate, "key": cluster.client_key})


def named(settings: Mapping[str, Any]) -> Env:
    """Settings under their names in the environment."""
    return {f"{ENV_PREFIX}{name}".upper(): str(value) for name, value in settings.items()}


def refusal(group: WorkerGroup, *settings: str, within: float = MOST_SECONDS) -> tuple[int, str]:
    """How a worker ends that may not work, and what it says; no password among it."""
    worker, started = group.start(*settings), time.monotonic()
    code = worker.wait(2 * MOST_SECONDS)
    log = group.read_log(worker)
    assert time.monotonic() - started < within, log
    password = group.env.get(f"{ENV_PREFIX}PASSWORD")
    assert not password or password not in log
    assert "Traceback" not in log
    return code, log


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def env(self, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """`env(name=value)`: what the environment says."""
        (workplace / "none.pem").write_text("no certificate")

        def tell(**settings: str) -> None:
            for name, value in named(settings).items():
                monkeypatch.setenv(name, value)

        return tell

    @pytest.mark.parametrize(
        ("settings", "protocol"),
        [
            pytest.param({}, "PLAINTEXT", id="nothing"),
            pytest.param({"username": "u", "password": "p"}, "SASL_SSL", id="a password never goes in the clear"),
            pytest.param(
                {"username": "u", "password": "p", "security_protocol": "SASL_PLAINTEXT"}, "SASL_PLAINTEXT",
                id="unless it is asked for",
            ),
            pytest.param({"security_protocol": "SSL"}, "SSL", id="TLS alone"),
            pytest.param({"username": ""}, "PLAINTEXT", id="what is empty is unset"),
        ],
    )  # fmt: skip
    def test_the_protocol_is_what_the_settings_call_for(self, env: Any, settings: Env, protocol: str) -> None:
        env(**settings)
        assert KafkaSecuritySettings.from_env().client_options()["security_protocol"] == protocol

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            pytest.param({"username": "u"}, "USERNAME and .*PASSWORD belong together", id="a user alone"),
            pytest.param({"password": "secret"}, "USERNAME and .*PASSWORD belong together", id="a password alone"),
            pytest.param({"certificate": "none.pem"}, "CERTIFICATE and .*KEY belong", id="a certificate alone"),
            pytest.param({"security_protocol": "SASL_SSL"}, "there is no user", id="SASL without a user"),
            pytest.param({"security_protocol": "TLS"}, "SECURITY_PROTOCOL: Input should be", id="no protocol"),
            pytest.param({"sasl_mechanism": "GSSAPI"}, "SASL_MECHANISM: Input should be", id="no mechanism"),
            pytest.param({"ca": "gone.pem"}, "CA: Path does not point to a file", id="no file"),
            pytest.param({"ca": "none.pem"}, "CA: .*no certificate", id="no certificate"),
            pytest.param({"certificate": "none.pem", "key": "none.pem"}, "CERTIFICATE, .*KEY", id="no key"),
        ],
    )
    def test_what_is_wrong_is_named_at_once(self, env: Any, settings: Env, words: str) -> None:
        env(**settings)
        with pytest.raises(ConfigError, match=words) as raised:
            KafkaSecuritySettings.from_env()
        assert "secret" not in str(raised.value)
        assert raised.value.exit_code == 2

    @pytest.mark.parametrize("servers", ["", "localhost", "localhost:0", "localhost:99999", "a:1,,b:2", "http://a:1"])
    def test_an_address_is_a_host_and_a_port(self, servers: str) -> None:
        with pytest.raises(ConfigError, match="HOST:PORT"):
            KafkaClientFactory(servers)


@pytest.mark.kafka
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", None])
def test_a_password_over_tls_and_a_certificate_get_in(secured_broker: Any, monkeypatch: Any, mechanism: Any) -> None:
    # Given the environment of somebody who may come in
    topic = new_topic(secured_broker, partitions=3)
    env = by_password(secured_broker, sasl_mechanism=mechanism) if mechanism else by_certificate(secured_broker)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    # When a connection is made
    connection = KafkaClientFactory(secured_broker.bootstrap if mechanism else secured_broker.bootstrap_mtls)
    # Then it gets in, and records go back and forth
    assert connection.partition_counts([topic]) == {topic: 3}
    send_values(connection.options, topic, [b"one"])
    assert read_values(connection.options, topic, 1) == [b"one"]


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.parametrize("is_mtls", [pytest.param(False, id="SCRAM over TLS"), pytest.param(True, id="mTLS")])
def test_a_worker_of_a_secured_cluster_answers_exactly_once(
    secured_broker: Any, make_worker_group: MakeWorkerGroup, is_mtls: bool
) -> None:
    # Given two workers, of which one is killed at work
    env = by_certificate(secured_broker) if is_mtls else by_password(secured_broker)
    bootstrap = secured_broker.bootstrap_mtls if is_mtls else secured_broker.bootstrap
    connection = secured_broker.mtls_client_options() if is_mtls else secured_broker.client_options()
    security = {name: value for name, value in connection.items() if name != "bootstrap_servers"}
    group = make_worker_group(secured_broker, env=env, bootstrap=bootstrap)
    victim, other = group.start(), group.start()
    for worker in (victim, other):
        group.wait_until_assigned(worker)
    with group.producing(rate=300, **security):
        time.sleep(2)
        group.kill(victim)
        time.sleep(3)
    # When all is delivered
    group.wait_until_committed(**security)
    assert group.stop(other) < 10
    # Then the verifier, which comes in the same way, finds one answer a record
    command = [sys.executable, "-m", "model_name", "kafka", "verify", "--bootstrap-servers", bootstrap]
    command += ["--input", group.input, "--output", group.output, "--dead-letter", group.dead_letter]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ | env)
    assert done.returncode == 0, done.stdout + done.stderr
    if not is_mtls:
        assert secured_broker.password not in group.read_log(other) + group.read_log(victim)


@pytest.mark.kafka
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"password": "wrong"}, id="a wrong password"),
        pytest.param({"username": "nobody"}, id="a user that is none"),
        pytest.param({"password": "wrong", "sasl_mechanism": "PLAIN"}, id="a wrong password in PLAIN"),
    ],
)
def test_who_may_not_come_in_is_told(secured_broker: Any, make_worker_group: MakeWorkerGroup, changes: Env) -> None:
    # Given somebody whom the cluster does not know
    group = make_worker_group(secured_broker, env=by_password(secured_broker, **changes))
    # When a worker starts, then it ends and says why; the client may lose all but that the broker hung up
    code, log = refusal(group)
    assert code == 5
    assert re.search("invalid credentials|Invalid username or password|socket disconnected", log)
    for name in ("USERNAME", "PASSWORD", "SASL_MECHANISM"):
        assert f"{ENV_PREFIX}{name}" in log


def test_to_hear_that_there_is_no_hope_ends_the_attempt() -> None:
    # Given what the client tells its log between two attempts
    told = logging.getLogger("kafka.net.manager")
    with client.capture_client_errors() as heard:
        told.warning("%s: %s", "a", kafka_errors.KafkaConnectionError("later"))
        with pytest.raises(kafka_errors.SaslAuthenticationFailedError):
            told.warning("%s: %s", "a", kafka_errors.SaslAuthenticationFailedError("never"))
    # Then it is what a timeout is explained by, whatever came after
    heard.append(kafka_errors.KafkaConnectionError("socket disconnected"))
    error = client.cluster_error(["a:1"], client.root_cause(kafka_errors.KafkaTimeoutError("late"), heard))
    assert error.message == "Kafka at a:1: SaslAuthenticationFailed: never"


UNREACHABLE: dict[str, tuple[Callable[[Any], tuple[str, Env]], str, str]] = {
    "a CA that is not trusted": (
        lambda cluster: (cluster.bootstrap, named({"username": "u", "password": "p"})),
        "CERTIFICATE_VERIFY_FAILED", f"set {ENV_PREFIX}CA",
    ),
    "no TLS where there is": (lambda cluster: (cluster.bootstrap, {}), "", f"{ENV_PREFIX}SECURITY_PROTOCOL"),
    "no password where one is asked for": (
        lambda cluster: (cluster.bootstrap, named({"ca": cluster.ca})), "", f"{ENV_PREFIX}SECURITY_PROTOCOL",
    ),
    "no certificate where one is asked for": (
        lambda cluster: (cluster.bootstrap_mtls, named({"ca": cluster.ca})), "", f"{ENV_PREFIX}CERTIFICATE",
    ),
    "nobody there": (lambda _: ("127.0.0.1:1", {}), "ECONNREFUSED", "check the addresses"),
    "a host that is none": (lambda _: ("nowhere.invalid:9092", {}), "DNS", "check the addresses"),
}  # fmt: skip


@pytest.mark.kafka
@pytest.mark.parametrize("name", UNREACHABLE)
def test_a_cluster_that_is_not_reached_is_told_with_the_reason(
    secured_broker: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # Given what does not go together
    settings, words, hint = UNREACHABLE[name]
    servers, env = settings(secured_broker)
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(client, "CONNECT_SECONDS", 1.0)
    # When a connection is tried, then it is told why it did not work, and what to do
    with pytest.raises(DependencyError) as raised:
        KafkaClientFactory(servers).partitions(["any"])
    assert words in raised.value.message
    assert hint in raised.value.hint
    assert raised.value.exit_code == 5


@pytest.mark.kafka
@pytest.mark.slow
def test_a_worker_gives_up_a_cluster_that_is_away(secured_broker: Any, make_worker_group: MakeWorkerGroup) -> None:
    # Given nobody at the address, and when a worker starts, then it ends in time and says why
    code, log = refusal(make_worker_group(secured_broker, env={}, bootstrap="127.0.0.1:1"))
    assert code == 5
    assert "ECONNREFUSED" in log


@pytest.mark.kafka
@pytest.mark.parametrize("topic", ["input", "output", "dead_letter"])
def test_a_topic_that_does_not_exist_is_named(
    secured_broker: Any, make_worker_group: MakeWorkerGroup, topic: str
) -> None:
    # Given a group of which one topic is gone
    group = make_worker_group(secured_broker, env=by_password(secured_broker))
    name = getattr(group, topic)
    with secured_broker.admin() as admin:
        admin.delete_topics([name])
    # When a worker starts, then it ends and names it
    code, log = refusal(group)
    assert code == 5
    assert f"{name}: " in log
    assert "create it" in log


def rule(kind: ResourceType, name: str, operation: ACLOperation) -> ACL:
    return ACL("User:stranger", "*", operation, ACLPermissionType.ALLOW, ResourcePattern(kind, name))


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("lacking", "words", "delivery"),
    [
        pytest.param("input", "READ the input", "exactly_once", id="reading the input"),
        pytest.param("output", "WRITE where the results", "exactly_once", id="writing the output"),
        pytest.param("output", "WRITE where the results", "at_least_once", id="writing the output, at least once"),
        pytest.param("dead_letter", "WRITE where the results", "exactly_once", id="writing dead letters"),
        pytest.param("dead_letter", "WRITE where the results", "at_least_once", id="writing them, at least once"),
        pytest.param("group", "READ the group", "exactly_once", id="the group"),
        pytest.param("instance", "transactional ids", "exactly_once", id="the transactional id"),
        pytest.param("instance", "", "at_least_once", id="nothing that it needs"),
    ],
)
def test_who_may_not_do_all_is_told_what_is_missing(
    secured_broker: Any, make_worker_group: MakeWorkerGroup, lacking: str, words: str, delivery: str
) -> None:
    # Given a user with all rights but one, and records of both kinds
    env = by_password(secured_broker, username=secured_broker.stranger, password=secured_broker.stranger_password)
    group = make_worker_group(secured_broker, env=env, delivery=delivery, partitions=1)
    topics = (group.input, group.output, group.dead_letter)
    rights = {
        "input": rule(ResourceType.TOPIC, group.input, ACLOperation.READ),
        "output": rule(ResourceType.TOPIC, group.output, ACLOperation.WRITE),
        "dead_letter": rule(ResourceType.TOPIC, group.dead_letter, ACLOperation.WRITE),
        "group": rule(ResourceType.GROUP, group.name, ACLOperation.READ),
        "instance": rule(ResourceType.TRANSACTIONAL_ID, group.name, ACLOperation.WRITE),
    }
    given = [right for name, right in rights.items() if name != lacking]
    given += [rule(ResourceType.TOPIC, topic, ACLOperation.DESCRIBE) for topic in topics]
    with secured_broker.admin() as admin:
        admin.create_acls(given)
    send_values(secured_broker.client_options(), group.input, [b"bad"] if lacking == "dead_letter" else VALUES)
    # When a worker starts
    if words:
        code, log = refusal(group, f"job.instance={group.name}")
        # Then it ends, and says what is missing
        assert code == 5
        assert words in log
        return
    # Or works, where it does not need that one
    group.start(f"job.instance={group.name}")
    assert len(read_values(secured_broker.client_options(), group.output, 3)) == 3
