"""KServe without what a predictor never uses: half the memory, and half the time until it is ready.

`import kserve` brings its client of the Kubernetes API and some hundred models of its resources, and with them
`kubernetes`; its protocols name `pandas` in annotations. None of it is called here. In the process of a server, and
only there, KServe's package is therefore entered by its modules alone, and for those two stand empty modules while it
is imported.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

UNUSED = ("pandas", "kubernetes")
ENTRANCES = ("kserve.model_server", "kserve.model", "kserve.model_repository")


class StandIn(ModuleType):
    """A module of which every attribute is an empty class, so that annotations and `isinstance` can name it."""

    def __getattr__(self, name: str) -> type:
        """Make one.

        Raises:
            AttributeError: A special one is looked for, which modules may lack.
        """
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class StandIns(MetaPathFinder, Loader):
    """Finds a stand-in for each module of some packages."""

    def __init__(self, packages: Sequence[str]) -> None:
        """Stand in for them."""
        self.packages = packages

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """One of theirs, or None."""
        is_theirs = fullname.split(".", 1)[0] in self.packages
        return ModuleSpec(fullname, self, is_package=True) if is_theirs else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The stand-in."""
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: it is empty."""


def slim_down() -> None:
    """Import what is needed of KServe and no more; does nothing where KServe has been imported already."""
    spec = find_spec("kserve")
    if "kserve" in sys.modules or spec is None or spec.submodule_search_locations is None:
        return
    package = ModuleType("kserve")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules["kserve"] = package
    absent = [name for name in UNUSED if name not in sys.modules]
    finder = StandIns(absent)
    sys.meta_path.insert(0, finder)
    try:
        for entrance in ENTRANCES:
            import_module(entrance)
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, StandIn)]:
            del sys.modules[name]  # whoever else wants the library gets it
