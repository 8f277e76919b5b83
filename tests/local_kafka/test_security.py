"""Authentication and authorization of a secured cluster."""

import pytest
from kafka import KafkaAdminClient
from kafka.errors import AuthorizationError, KafkaError

from tests.support.kafka_cluster import new_topic, read_values, send_values

pytestmark = pytest.mark.kafka

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_user_authenticates_by_password(secured_broker, mechanism):
    client_options = secured_broker.client_options(mechanism)
    topic = new_topic(secured_broker)
    send_values(client_options, topic, [b"one"])
    assert read_values(client_options, topic, 1) == [b"one"]


def test_a_client_authenticates_by_certificate(secured_broker):
    topic = new_topic(secured_broker)
    send_values(secured_broker.mtls_client_options(), topic, [b"one"])
    assert read_values(secured_broker.mtls_client_options(), topic, 1) == [b"one"]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"sasl_plain_password": "wrong"}, id="a wrong password"),
        pytest.param({"sasl_plain_username": "nobody"}, id="an unknown user"),
        pytest.param({"ssl_cafile": None}, id="an untrusted CA"),
        pytest.param({"security_protocol": "PLAINTEXT"}, id="no TLS"),
    ],
)
@pytest.mark.parametrize("mechanism", MECHANISMS[::2])
def test_a_client_with_invalid_credentials_is_rejected(secured_broker, mechanism, changes):
    with pytest.raises(KafkaError):
        KafkaAdminClient(**secured_broker.client_options(mechanism) | changes, bootstrap_timeout_ms=2000)


def test_the_mtls_listener_rejects_clients_without_a_certificate(secured_broker):
    without_certificate = secured_broker.mtls_client_options() | {"ssl_certfile": None, "ssl_keyfile": None}
    with pytest.raises(KafkaError):
        KafkaAdminClient(**without_certificate, bootstrap_timeout_ms=2000)


def test_a_stranger_has_no_permissions(secured_broker):
    topic = new_topic(secured_broker)
    login = {
        "sasl_plain_username": secured_broker.stranger,
        "sasl_plain_password": secured_broker.stranger_password,
    }
    with pytest.raises(AuthorizationError):
        send_values(secured_broker.client_options() | login, topic, [b"one"])


def test_secrets_are_readable_by_their_owner_only(secured_broker):
    files = [secured_broker.client_key, secured_broker.security.keystore, secured_broker.folder / "1/server.properties"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
