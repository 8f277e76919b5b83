"""Portfolio with which a search over kinds of model begins: configs that were good on many tables, cheap ones first.

Feurer et al. (2022, Auto-Sklearn 2.0) and Salinas and Erickson (2024, TabRepo) found that a fixed list of good configs
beats a search without prior knowledge. After the portfolio, a search suggests points of `SPACES`.
"""

from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from model_name.utils.search.spaces import Params, Space

DEFAULT_TREES: Params = {"KIND": "BoostedTrees"}
"""Params of the first candidate of every search, which an ensemble must beat."""
MAX_FOREST_ROWS = 10_000


@dataclass(frozen=True)
class Candidate:
    """A config to try.

    Attributes:
        params: KIND and hyperparameters.
        cost: Expected fit time relative to the default trees; 0 if unknown.
        max_rows: Number of rows of the largest table that it is tried on; None for no limit.
    """

    params: Params = field(hash=False)
    cost: float = 0.0
    max_rows: int | None = None

    def accepts(self, rows: int) -> bool:
        """Report whether the config is tried on a table of `rows` rows."""
        return self.max_rows is None or rows <= self.max_rows


def _trees(rate: float, trees: int, *, leaves: int, rows: int, share: float, shrinkage: float) -> Candidate:
    params = {
        "KIND": "BoostedTrees",
        "learning_rate": rate,
        "max_iter": trees,
        "max_leaf_nodes": leaves,
        "min_samples_leaf": rows,
        "max_features": share,
        "l2_regularization": shrinkage,
    }
    return Candidate(params, cost=trees_cost(params))


def _forest(*, cost: float, **params: Any) -> Candidate:
    """Create a candidate for small tables; on large ones, deep trees are big, slow to explain, worse than boosting."""
    return Candidate({"KIND": "RandomForest", "max_depth": None} | params, cost=cost, max_rows=MAX_FOREST_ROWS)


def trees_cost(params: Params) -> float:
    """Estimate the fit time of boosted trees relative to the default ones."""
    trees, leaves = params.get("max_iter", 100), params.get("max_leaf_nodes", 31)
    return float(trees / 100 * (leaves / 31) ** 0.5 * (0.4 + 0.6 * params.get("max_features", 1.0)))


def portfolio() -> list[Candidate]:
    """Return the first configs of a search, the default trees first."""
    return [
        Candidate(DEFAULT_TREES, cost=1.0),
        Candidate({"KIND": "LinearModel", "alpha": 1.0}),
        _trees(0.05, 300, leaves=31, rows=20, share=0.3, shrinkage=0.0),
        Candidate({"KIND": "LinearModel", "alpha": 20.0, "pieces": 6}),
        _trees(0.05, 200, leaves=8, rows=20, share=0.5, shrinkage=1.0),
        _forest(cost=3.0, randomized=True, min_samples_leaf=2),
        Candidate({"KIND": "TabularNetwork"}),
        _trees(0.03, 500, leaves=16, rows=40, share=0.3, shrinkage=5.0),
        Candidate({"KIND": "LinearModel", "alpha": 100.0}),
        _forest(cost=5.0, max_features=0.33, min_samples_leaf=3),
        _trees(0.05, 100, leaves=6, rows=10, share=0.5, shrinkage=0.0),
        Candidate({"KIND": "TabularNetwork", "hidden": 256, "dropout": 0.3, "learning_rate": 1e-3}),
        _trees(0.04, 400, leaves=63, rows=20, share=0.5, shrinkage=1.0),
    ]


SPACES: dict[str, Space] = TypeAdapter(dict[str, Space]).validate_python(
    {
        "BoostedTrees": {
            "learning_rate": {"low": 0.02, "high": 0.15, "log": True},
            "max_iter": {"low": 100, "high": 600, "log": True},
            "max_leaf_nodes": {"low": 6, "high": 80, "log": True},
            "min_samples_leaf": {"low": 5, "high": 100, "log": True},
            "max_features": {"low": 0.2, "high": 0.9},
            "l2_regularization": {"low": 0.01, "high": 30.0, "log": True},
        },
        "TabularNetwork": {
            "learning_rate": {"low": 5e-4, "high": 4e-3, "log": True},
            "hidden": [96, 128, 192, 256],
            "layers": {"low": 1, "high": 3},
            "dropout": {"low": 0.0, "high": 0.4},
            "bins": [16, 32, 64],
            "weight_decay": {"low": 1e-3, "high": 0.1, "log": True},
        },
        "RandomForest": {
            "randomized": [True, False],
            "max_features": {"low": 0.2, "high": 0.9},
            "min_samples_leaf": {"low": 1, "high": 20, "log": True},
        },
        "LinearModel": {
            "alpha": {"low": 0.1, "high": 1000.0, "log": True},
            "pieces": [0, 3, 6, 12],
        },
    }
)
"""Search space of each kind."""
