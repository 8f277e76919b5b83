"""Searchers: strategies that search hyperparameters on folds of the training part."""

from model_name.utils.search.automl import AutoSearcher
from model_name.utils.search.grid_search import GridSearcher
from model_name.utils.search.optuna_search import OptunaSearcher
from model_name.utils.search.ray_search import RaySearcher
from model_name.utils.search.searcher import Searcher

__all__ = ["AutoSearcher", "GridSearcher", "OptunaSearcher", "RaySearcher", "Searcher"]
