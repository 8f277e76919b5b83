"""Parts of `benchmarks.serving`: the served model, server specifications, protocols and load generators."""
