"""Table schema: columns, target, keys and rules of a table.

Imports nothing but pydantic and numpy, because servers import it.
"""

from model_name.core.schemas.table_schema import Label, Outputs, TableSchema, Target, Task

__all__ = ["Label", "Outputs", "TableSchema", "Target", "Task"]
