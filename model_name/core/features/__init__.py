"""Features: transformations of checked columns into the matrix that a model takes."""
