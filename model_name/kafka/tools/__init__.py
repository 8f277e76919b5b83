"""Operate topics: produce, consume, verify and replay."""
