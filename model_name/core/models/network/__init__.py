"""The tabular network. `tabular` is light; what needs torch is imported when it is called for."""
