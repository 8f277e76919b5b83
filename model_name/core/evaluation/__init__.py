"""Evaluation of a version on held-out rows beyond its metrics: intervals, curves, learning curve, worst slices."""
