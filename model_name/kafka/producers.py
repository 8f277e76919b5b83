"""Send records with a producer of kafka-python, wait for their acknowledgements and find the rejected ones."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from model_name.kafka.client import force_close_producer
from model_name.kafka.records import OutputRecord

SIZE_ERRORS = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)
REJECTION_ERRORS = (*SIZE_ERRORS, kafka_errors.InvalidRecordError)
"""Errors that concern one record, not the broker."""

FENCED_ERRORS = (kafka_errors.ProducerFencedError, kafka_errors.InvalidProducerEpochError)
"""Errors of a producer whose transactional id another producer has taken over."""

PRODUCER_BATCH_BYTES = 256 * 1024  # of one partition, sent in one request


class RoutedRecord(NamedTuple):
    """A record and the topic and partition to write it to; a partition of None is chosen by the key."""

    topic: str
    partition: int | None
    record: OutputRecord


class RecordsRejectedError(Exception):
    """The broker rejects some of the records.

    Attributes:
        positions: Error of each rejected record, by its position among the records that were sent.
    """

    def __init__(self, positions: Mapping[int, Exception]) -> None:
        """Create the error from the errors by position."""
        super().__init__(f"{len(positions)} messages are refused")
        self.positions = positions


def send_records(producer: KafkaProducer, records: Sequence[RoutedRecord], futures: list[Any]) -> None:
    """Pass records to the producer, without waiting for acknowledgements.

    Args:
        producer: Producer that sends the records. It accepts no more once the broker has rejected one of them.
        records: Records in the order in which they are to be written.
        futures: List that the future of each accepted record is appended to.

    Raises:
        RecordsRejectedError: Some records exceed `max_request_size` of the producer.
        KafkaError: The producer accepts no more records.
    """
    rejected = {}
    for position, (topic, partition, record) in enumerate(records):
        try:
            futures.append(producer.send(topic, record.value, record.key, record.headers, partition))
        except kafka_errors.MessageSizeTooLargeError as err:
            rejected[position] = err
        except kafka_errors.KafkaError:
            if rejected:
                break
            raise
    if rejected:
        raise RecordsRejectedError(rejected)


def wait_for_acks(futures: Sequence[Any], timeout_seconds: float, *, ignored: tuple[type[Exception], ...] = ()) -> None:
    """Wait until the broker has acknowledged all records.

    Args:
        futures: Futures of the records.
        timeout_seconds: Timeout for all of them together.
        ignored: Types of errors that do not end the wait.

    Raises:
        KafkaError: A record failed, or was not acknowledged in time.
    """
    deadline = monotonic() + timeout_seconds
    for future in futures:
        if not future.succeeded():  # costs a tenth of `get`
            with suppress(*ignored):
                future.get(timeout=max(0.0, deadline - monotonic()))


def rejected_positions(futures: Sequence[Any]) -> dict[int, Exception]:
    """Find the records that the broker rejected: their positions and errors."""
    failed = {position: future.exception for position, future in enumerate(futures) if future.failed()}
    return {position: err for position, err in failed.items() if isinstance(err, REJECTION_ERRORS)}


def close_producer(producer: KafkaProducer, timeout_seconds: float) -> None:
    """Close a producer, also one that cannot send its pending records."""
    try:
        producer.close(timeout=timeout_seconds)
    except kafka_errors.KafkaError:  # raised by its flush, before anything is closed
        force_close_producer(producer)
