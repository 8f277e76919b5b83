"""Apache Kafka without containers, for tests, benchmarks and first steps: `python -m local_kafka up`."""
