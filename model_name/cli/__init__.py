"""Command line `model-name`: one module per group of commands."""
