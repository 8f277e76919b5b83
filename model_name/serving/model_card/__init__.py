"""What people and programs are shown of a model: its card with a form, and the OpenAPI document."""
