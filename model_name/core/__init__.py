"""Schemas, features, models and statistics: pure code without files, network or services."""
