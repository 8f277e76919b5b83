"""Explainer: a server that explains the predictions of a model. Needs the dependencies of training."""
