"""Launchers: resource profiles of the steps of a pipeline."""
