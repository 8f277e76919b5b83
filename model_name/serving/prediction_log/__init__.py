"""Prediction log: JSON Lines files of requests and their outputs."""
