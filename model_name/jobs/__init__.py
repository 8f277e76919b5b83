"""One verb per file; `run_component` is how a pipeline's step runs one."""

from model_name.runner import run_component

__all__ = ["run_component"]
