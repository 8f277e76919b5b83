"""Decisions on raw scores: calibration, thresholds and prediction intervals."""
