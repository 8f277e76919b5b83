"""What a version is worth on held-out rows, beyond a number a metric."""
