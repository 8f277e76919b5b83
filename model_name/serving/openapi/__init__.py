"""OpenAPI document and JSON schemas of the requests."""
