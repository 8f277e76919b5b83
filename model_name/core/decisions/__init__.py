"""Decisions: calibration, thresholds and prediction intervals, applied to the raw outputs of a model."""
