"""A server whose model never ends for one area: in Python, or in C without the interpreter.

Arguments: the way in which it is stuck, the module of the server, and the arguments of that.
"""

import runpy
import sys
import time
from typing import Any

from model_name.serving.dataplane import DataPlane

STUCK_AREA = 13.0


def wait_in_python() -> None:
    while True:
        pass


def wait_in_c() -> None:
    time.sleep(10_000)


WAYS = {"python": wait_in_python, "c": wait_in_c}


def main() -> None:
    way, module, *arguments = sys.argv[1:]
    predict = DataPlane.predict_matrix

    def stuck_predict(self: DataPlane, matrix: Any, **options: Any) -> Any:
        if (matrix[:, 0] == STUCK_AREA).any():
            WAYS[way]()
        return predict(self, matrix, **options)

    DataPlane.predict_matrix = stuck_predict  # type: ignore[method-assign]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__")


if __name__ == "__main__":
    main()
