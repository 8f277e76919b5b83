"""Turn a table and a config into a production ML service."""

__version__ = "0.1.0"
