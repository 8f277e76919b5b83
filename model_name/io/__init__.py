"""The doors: configs, tables, the environment, the registry, the audit trail, services."""
