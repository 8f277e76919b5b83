"""What KServe's own routes know of the model: its name, its readiness and its metadata."""

from typing import Any

from kserve.model import Model

from model_name.serving.batching import Batcher
from model_name.serving.tensors import input_types, output_types


class Predictor(Model):
    """A model for KServe's registry. Requests do not come this way: the front answers them."""

    def __init__(self, name: str, batcher: Batcher) -> None:
        """Describe what a batcher answers by."""
        super().__init__(name)
        self.batcher = batcher
        self.ready = True

    def get_input_types(self) -> list[dict[str, Any]]:
        """The inputs for the metadata of V2."""
        return input_types(self.batcher.plane.schema)

    def get_output_types(self) -> list[dict[str, Any]]:
        """The outputs for the metadata of V2."""
        return output_types(self.batcher.plane.schema)
