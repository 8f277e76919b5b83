"""What a table seems to be: from its values to a schema, for `model-name init`."""
