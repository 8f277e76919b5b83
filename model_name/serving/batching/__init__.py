"""Adaptive batching: requests that wait together are computed together."""
