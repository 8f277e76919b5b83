"""Inference of a schema from a table, for `model-name init`."""
