"""Loops over a topic that the worker is compared with."""
