"""What is measured: each module prints its table and writes `build/benchmarks/NAME.json`."""
