"""Hyper-parameter search: spaces, trials, their journal, and the search over kinds of model."""
