"""Jobs: one verb per module."""
