"""Protobuf messages of the Open Inference Protocol, loaded from the installed `kserve` package as `pb`.

`import kserve` would also import KServe's client of the Kubernetes API, FastAPI and pandas, which a server never uses:
half of its memory and of its start-up time. The generated module needs protobuf alone, so it is loaded by its path.
It is registered under its canonical name: a later import of `kserve` finds it and does not define the messages twice.
"""

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

MODULE_NAME = "kserve.protocol.grpc.grpc_predict_v2_pb2"


def load_messages() -> ModuleType:
    """Load the generated module without its parent packages.

    Raises:
        ModuleNotFoundError: The package `kserve` is not installed.
    """
    if MODULE_NAME in sys.modules:
        return sys.modules[MODULE_NAME]
    package = find_spec("kserve")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'kserve'", name="kserve")
    path = Path(package.submodule_search_locations[0], *MODULE_NAME.split(".")[1:]).with_suffix(".py")
    spec = spec_from_file_location(MODULE_NAME, path)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {MODULE_NAME!r}", name=MODULE_NAME)
    module = module_from_spec(spec)
    sys.modules[MODULE_NAME] = module
    spec.loader.exec_module(module)
    return module


pb = load_messages()
