"""Table schema: columns, target, keys and rules of a table.

Imports only numpy and pydantic, because servers import it.
"""

from model_name.core.schemas.columns import Column
from model_name.core.schemas.outputs import Label, Outputs, Task
from model_name.core.schemas.table_schema import TableSchema, Target

__all__ = ["Column", "Label", "Outputs", "TableSchema", "Target", "Task"]
