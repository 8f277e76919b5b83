"""Benchmarks: each module prints a table and writes `build/benchmarks/NAME.json`."""
