"""The model kinds. A new kind subclasses `Model` in a module of its own and names itself by its `KIND`."""

from model_name.core.models.baseline import ConstantModel
from model_name.core.models.blend import AutoModel
from model_name.core.models.linear import LinearModel
from model_name.core.models.model import Explanation, FitContext, Model, model_kinds
from model_name.core.models.model_kinds import ModelConfig, build_model
from model_name.core.models.network.tabular import TabularNetwork
from model_name.core.models.trees import BoostedTrees, RandomForest

__all__ = [
    "AutoModel",
    "BoostedTrees",
    "ConstantModel",
    "Explanation",
    "FitContext",
    "LinearModel",
    "Model",
    "ModelConfig",
    "RandomForest",
    "TabularNetwork",
    "build_model",
    "model_kinds",
]
