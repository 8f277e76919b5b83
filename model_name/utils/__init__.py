"""Strategies that a job is handed: how to split, search, sign."""
