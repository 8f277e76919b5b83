"""Fit, compress, export and register models: the steps of the training job."""
