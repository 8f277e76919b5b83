"""Kinds of models. A new kind subclasses `Model` in a module of its own and is registered by its `KIND`."""

from model_name.core.models.baseline import ConstantModel
from model_name.core.models.blend import AutoModel
from model_name.core.models.explanation import Explanation
from model_name.core.models.factory import ModelConfig, build_model, model_kinds
from model_name.core.models.linear import LinearModel
from model_name.core.models.model import FitContext, Model
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
