"""Tabular network. `tabular` is light to import; it imports the modules that need torch when they are used."""
