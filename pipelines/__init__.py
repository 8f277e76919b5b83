"""Pipelines of the jobs, and `python -m pipelines compile|run|submit|schedule`."""
