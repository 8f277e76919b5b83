"""Strategies that a job is configured with: splitters, searchers and signers."""
