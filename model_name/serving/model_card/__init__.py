"""Model card of a served model: an HTML page with a form to try the model."""
