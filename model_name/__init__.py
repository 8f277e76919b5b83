"""A table and a config in, a production ML service out."""

__version__ = "0.1.0"
