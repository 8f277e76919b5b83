"""Fixtures for the fault tests of workers."""

from tests.support.kafka_workers import bundle, make_worker_group  # noqa: F401
