"""Kafka: predictions from one topic to another, exactly once, and what one needs to look after them."""
