"""Consumer-group worker: predictions from one topic to another."""
