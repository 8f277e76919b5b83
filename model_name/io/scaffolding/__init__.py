"""Config folders for new tables, rendered from the files in `templates`."""

from model_name.io.scaffolding.project import project_name, write_project

__all__ = ["project_name", "write_project"]
