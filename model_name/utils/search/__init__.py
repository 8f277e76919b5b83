"""Hyperparameter search: spaces, objectives, trials and their journal, AutoML and Ray Tune."""
