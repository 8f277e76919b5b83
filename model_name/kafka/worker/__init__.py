"""Worker of a consumer group that predicts from one topic to another."""
