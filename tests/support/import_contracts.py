"""Contract type `allowed` for import-linter: modules import nothing but what a list allows."""

import sys
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class AllowedContract(Contract):
    """Check that modules import only allowed modules, themselves and the standard library.

    An allow-list does not go stale as a deny-list does: a new module or library is forbidden until it is listed.
    Imports inside functions count as well.

    Attributes:
        source_modules: Packages or modules whose direct imports are checked, with all modules below them.
        allowed_modules: Packages or modules that they may import, with all modules below them.
        ignore_modules: Packages or modules below `source_modules` that are not checked.
    """

    type_name = "allowed"

    source_modules = fields.ListField(subfield=fields.StringField())
    allowed_modules = fields.ListField(subfield=fields.StringField())
    ignore_modules = fields.ListField(subfield=fields.StringField(), required=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Compare the imports of each source module with the list."""
        sources = _names(self.source_modules)
        ignored = _names(self.ignore_modules)
        allowed = sources + _names(self.allowed_modules)
        missing = [name for name in sources if name not in graph.modules]
        forbidden = sorted(
            (importer, imported)
            for importer in graph.modules
            if _is_below(importer, sources) and not _is_below(importer, ignored)
            for imported in graph.find_modules_directly_imported_by(importer)
            if imported.split(".")[0] not in sys.stdlib_module_names and not _is_below(imported, allowed)
        )
        return ContractCheck(kept=not forbidden and not missing, metadata={"forbidden": forbidden, "missing": missing})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print each import that is not on the list."""
        for name in check.metadata["missing"]:
            output.print_error(f"{name} is not a module")
        for importer, imported in check.metadata["forbidden"]:
            output.print_error(f"{importer} must not import {imported}")
        output.new_line()


def _names(field: Any) -> list[str]:
    return list(field or ())


def _is_below(name: str, packages: list[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)
