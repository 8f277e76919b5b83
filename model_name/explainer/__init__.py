"""The explainer: a server of its own that says why a model answers what it answers. Needs what training needs."""
