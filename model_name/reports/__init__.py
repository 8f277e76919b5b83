"""The pages: what the other jobs left about a version, in words and pictures."""
