"""The tabular network: embeddings for categories, a residual MLP."""

from typing import Literal

from model_name.core.models.references import ConstantModel


class TabularNetwork(ConstantModel):
    """Placeholder so that imports resolve while the module is written."""

    KIND: Literal["TabularNetwork"] = "TabularNetwork"  # type: ignore[assignment]
