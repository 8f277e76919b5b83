"""Predict from one Kafka topic to another, exactly once: the worker, and the tools to operate it."""
