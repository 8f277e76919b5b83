"""What the tests of streams share."""

from tests.support.kafka_workers import bundle, make_fleet  # noqa: F401
