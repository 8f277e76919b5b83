"""Who gets in to a secured cluster, and what they may do."""

import pytest
from kafka import KafkaAdminClient
from kafka.errors import AuthorizationError, KafkaError

from tests.support.kafka_cluster import new_topic, read, send

pytestmark = pytest.mark.kafka

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_password_lets_its_user_in(secured_broker, mechanism):
    connection = secured_broker.connection(mechanism)
    topic = new_topic(secured_broker)
    send(connection, topic, [b"one"])
    assert read(connection, topic, 1) == [b"one"]


def test_the_certificate_lets_its_client_in(secured_broker):
    topic = new_topic(secured_broker)
    send(secured_broker.connection_mtls(), topic, [b"one"])
    assert read(secured_broker.connection_mtls(), topic, 1) == [b"one"]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"sasl_plain_password": "wrong"}, id="a wrong password"),
        pytest.param({"sasl_plain_username": "nobody"}, id="a user that does not exist"),
        pytest.param({"ssl_cafile": None}, id="a CA that the client does not trust"),
        pytest.param({"security_protocol": "PLAINTEXT"}, id="no TLS"),
    ],
)
@pytest.mark.parametrize("mechanism", MECHANISMS[::2])
def test_nobody_gets_in_with(secured_broker, mechanism, changes):
    with pytest.raises(KafkaError):
        KafkaAdminClient(**secured_broker.connection(mechanism) | changes, bootstrap_timeout_ms=2000)


def test_nobody_gets_in_to_the_other_listener_without_a_certificate(secured_broker):
    bare = secured_broker.connection_mtls() | {"ssl_certfile": None, "ssl_keyfile": None}
    with pytest.raises(KafkaError):
        KafkaAdminClient(**bare, bootstrap_timeout_ms=2000)


def test_a_stranger_gets_in_and_may_do_nothing(secured_broker):
    topic = new_topic(secured_broker)
    login = {
        "sasl_plain_username": secured_broker.stranger,
        "sasl_plain_password": secured_broker.stranger_password,
    }
    with pytest.raises(AuthorizationError):
        send(secured_broker.connection() | login, topic, [b"one"])


def test_secrets_are_for_their_owner_alone(secured_broker):
    files = [secured_broker.client_key, secured_broker.security.keystore, secured_broker.folder / "1/server.properties"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
