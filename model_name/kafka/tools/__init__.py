"""Command-line tools over topics: produce, consume, verify and replay."""
