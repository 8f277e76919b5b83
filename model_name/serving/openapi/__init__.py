"""OpenAPI document of a served model, with the JSON schemas of its requests and responses."""
