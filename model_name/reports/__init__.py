"""HTML reports: artifacts of versions, figures, tables, and comparisons of two versions."""
