"""The predictor behind a KafkaSource: a dispatcher that behaves like Knative's, with a real server and a real broker.

Knative's behaviour is in `WebClientCloudEventSender` and `InvalidCloudEventInterceptor` of eventing-kafka-broker of
knative-extensions: plain records become events and are posted in binary mode, in order within each partition, and
retried after transient errors.
"""

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import quote, unquote
from uuid import uuid4

import httpx
import pytest
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition

from model_name.serving.bundle import Bundle
from model_name.serving.dataplane import DataPlane
from tests.support.flat_bundles import make_bundle
from tests.support.server_processes import Server, launch_server
from tests.support.tables import FLAT_ROWS

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

RETRIES = 10
BACKOFF_SECONDS = 0.3  # doubled with each retry
NAME = "flats"
PARTITIONS = 3
BODIES = [json.dumps({"instances": FLAT_ROWS[: number + 1]}).encode() for number in range(3)]


class Dispatcher:
    """KafkaSource with ordered delivery, whose replies and dead letters go to KafkaSinks.

    Attributes:
        url: URL of the predictor; it may change, as the endpoints of a Service do.
        attempts: Number of requests per record.
    """

    def __init__(self, cluster: Any, name: str, url: str) -> None:
        self.cluster, self.url, self.group = cluster, url, f"{name}-group"
        self.input, self.output, self.dead = (
            cluster.create_topic(f"{name}-{part}", partitions=PARTITIONS) for part in ("in", "out", "dead")
        )
        self.attempts: dict[str, int] = {}

    def run(self, stop: Event, *, commits: bool = True) -> None:
        """Dispatch records until `stop` is set."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.cluster.bootstrap, group_id=self.group, enable_auto_commit=False
        )
        partitions = [TopicPartition(self.input, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        for partition in partitions:
            consumer.seek(partition, consumer.committed(partition) or 0)
        with KafkaProducer(bootstrap_servers=self.cluster.bootstrap) as producer, httpx.Client(timeout=600) as client:
            while not stop.is_set():
                for partition, records in consumer.poll(timeout_ms=200, max_records=10).items():
                    for record in records:
                        self.deliver(record, client, producer)
                        producer.flush()
                        if commits:
                            consumer.commit({partition: OffsetAndMetadata(record.offset + 1, "", -1)})
        consumer.close(autocommit=False)

    def deliver(self, record: Any, client: httpx.Client, producer: KafkaProducer) -> None:
        """Post a record until the response is final, and forward the reply."""
        headers = to_event_headers(record, self.input)
        key = None
        for retry in range(RETRIES + 1):
            self.attempts[headers["ce-id"]] = self.attempts.get(headers["ce-id"], 0) + 1
            try:
                response = client.post(
                    f"{self.url}/v1/models/{NAME}:predict", content=record.value,
                    headers=[(name.encode(), value.encode()) for name, value in headers.items()],
                )  # fmt: skip
            except httpx.TransportError:
                response = None
            if response is not None and not is_retryable(response.status_code):
                break
            time.sleep(BACKOFF_SECONDS * 2**retry)
        if response is not None and response.is_success:
            reply = [
                (n.replace("ce-", "ce_", 1), unquote(v)) for n, v in response.headers.items() if n.startswith("ce-")
            ]
            reply.append(("content-type", response.headers["content-type"]))
            topic, value = self.output, response.content
            key = dict(reply).get("ce_partitionkey")
        else:
            topic, value, reply = self.dead, record.value, [*headers.items()]
        producer.send(topic, value, key and key.encode(), [(name, text.encode()) for name, text in reply])


def to_event_headers(record: Any, topic: str) -> dict[str, str]:
    """Build the HTTP headers of a record as an event in binary mode."""
    attributes = {
        "specversion": "1.0",
        "type": "dev.knative.kafka.event",
        "source": f"/apis/v1/namespaces/flats/kafkasources/flats-source#{topic}",
        "subject": f"partition:{record.partition}#{record.offset}",
        "id": f"partition:{record.partition}/offset:{record.offset}",
        "time": datetime.fromtimestamp(record.timestamp / 1000, UTC).isoformat(timespec="milliseconds"),
    }
    if record.key is not None:
        attributes |= {"key": record.key.decode(), "partitionkey": record.key.decode()}
    record_headers = {name: value.decode() for name, value in record.headers}
    attributes |= {
        f"kafkaheader{re.sub('[^a-z0-9]', '', name.lower())}": value for name, value in record_headers.items()
    }
    headers = {f"ce-{name}": quote(value, safe="/:#+ ") for name, value in attributes.items()}
    content_type = {"content-type": record_headers["content-type"]} if "content-type" in record_headers else {}
    return headers | content_type | {"prefer": "reply", "kn-namespace": "flats"}


def is_retryable(status: int) -> bool:
    """Return whether Knative's data plane retries a response."""
    return status >= 500 or status in (404, 408, 409, 429)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle("regression", tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def start(bundle: Bundle, serving_env: dict[str, str], tmp_path: Path) -> Iterator[Callable[[], Server]]:
    """`start()`: start a server process without waiting until it is ready."""
    started: list[Server] = []

    def launch() -> Server:
        log = tmp_path / f"{len(started)}.log"
        arguments = ["--bundle", str(bundle.directory), "--model_name", NAME]
        started.append(launch_server("model_name.serving", *arguments, name=NAME, log=log, env=serving_env))
        return started[-1]

    yield launch
    for server in started:
        server.stop()


def produce(dispatcher: Dispatcher, count: int, *, bad: int = 0) -> None:
    """Produce records with a key, a header that is not ASCII, and, for every other record, a content type."""
    with KafkaProducer(bootstrap_servers=dispatcher.cluster.bootstrap) as producer:
        for number in range(count):
            headers = [("Trace-Id", f"t-{number} ü".encode())]
            headers += [("content-type", b"application/json")] if number % 2 else []
            value = b"not a row" if bad and number % bad == bad - 1 else BODIES[number % len(BODIES)]
            producer.send(dispatcher.input, value, b"key-%d" % (number % 7), headers)


def read_topic(dispatcher: Dispatcher, topic: str, count: int) -> list[Any]:
    """Wait until a topic has so many records, and read all of them."""
    options = {"auto_offset_reset": "earliest", "consumer_timeout_ms": 1500}
    deadline = time.monotonic() + 90
    while True:
        with KafkaConsumer(topic, bootstrap_servers=dispatcher.cluster.bootstrap, **options) as consumer:
            found = [*consumer]
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, f"{len(found)} of {count}"


@contextmanager
def running(dispatcher: Dispatcher, **options: Any) -> Iterator[None]:
    """Run a dispatcher during the block."""
    stop = Event()
    thread = Thread(target=dispatcher.run, args=(stop,), kwargs=options)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_replies_to_records_are_events_in_a_topic(broker: Any, bundle: Bundle, start: Callable[[], Server]) -> None:
    # Given a source and a server, and records of which some are invalid
    dispatcher = Dispatcher(broker, f"kn-{uuid4().hex[:8]}", start().wait().url)
    produce(dispatcher, 60, bad=10)
    # When they are dispatched
    with running(dispatcher):
        replies, dead = read_topic(dispatcher, dispatcher.output, 54), read_topic(dispatcher, dispatcher.dead, 6)
    # Then each valid record has one reply with its position, its key and its headers
    plane = DataPlane(bundle)
    assert len({dict(reply.headers)["ce_id"] for reply in replies}) == len(replies) == 54
    last: dict[bytes, int] = {}
    for reply in replies:
        attributes = {name.removeprefix("ce_"): value.decode() for name, value in reply.headers}
        number = int(re.findall(r"t-(\d+) ü", attributes["kafkaheadertraceid"])[0])
        assert attributes["type"] == "io.kserve.inference.response"
        assert attributes["source"] == f"io.kserve.inference.{NAME}"
        assert attributes["requestsource"].endswith(f"kafkasources/flats-source#{dispatcher.input}")
        assert attributes["subject"] == re.sub(r"(\d+)/offset:(\d+)", r"\1#\2", attributes["id"])
        assert attributes["content-type"] == "application/json"
        assert reply.key == attributes["key"].encode() == b"key-%d" % (number % 7)
        expected = plane.predict_rows(FLAT_ROWS[: number % 3 + 1]).prediction.tolist()
        assert json.loads(reply.value)["predictions"] == expected
        # And the replies of a key are in order
        assert last.get(reply.key, -1) < number
        last[reply.key] = number
    # And the invalid ones are dead letters after one attempt
    assert {record.value for record in dead} == {b"not a row"}
    assert {*dispatcher.attempts.values()} == {1}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["rolled", "killed"])
def test_a_restarted_server_loses_nothing(broker: Any, start: Callable[[], Server], number: signal.Signals) -> None:
    # Given a running source
    first = start().wait()
    dispatcher = Dispatcher(broker, f"kn-{uuid4().hex[:8]}", first.url)
    produce(dispatcher, 200)
    with running(dispatcher):
        while len(dispatcher.attempts) < 20:
            time.sleep(0.01)
        # When its server stops, and another one starts in its place
        first.process.send_signal(number)
        second = start()
        time.sleep(0.2)  # the new server does not listen yet
        dispatcher.url = second.url
        replies = read_topic(dispatcher, dispatcher.output, 200)
    # Then each record has one reply, and the replies of a key are in order
    assert len(replies) == 200
    assert len({dict(reply.headers)["ce_id"] for reply in replies}) == 200
    assert not read_topic(dispatcher, dispatcher.dead, 0)
    assert max(dispatcher.attempts.values()) > 1
    for key in {reply.key for reply in replies}:
        found = [int(dict(one.headers)["ce_id"].rpartition(b":")[2]) for one in replies if one.key == key]
        assert found == sorted(found)


def test_a_redelivered_record_gets_an_equal_reply(broker: Any, start: Callable[[], Server]) -> None:
    # Given a source that stops before it commits its offsets
    dispatcher = Dispatcher(broker, f"kn-{uuid4().hex[:8]}", start().wait().url)
    produce(dispatcher, 12)
    with running(dispatcher, commits=False):
        read_topic(dispatcher, dispatcher.output, 12)
    # When another one takes over
    with running(dispatcher):
        replies = read_topic(dispatcher, dispatcher.output, 24)
    # Then each reply exists twice, equal except for its time: consumers can deduplicate by source and id
    same: dict[bytes, list[Any]] = {}
    for reply in replies:
        headers = {name: value for name, value in reply.headers if name != "ce_time"}
        same.setdefault(headers["ce_id"], []).append((reply.key, reply.value, headers))
    assert len(same) == 12
    assert all(first == second for first, second in same.values())
