"""Grid search: every combination of the values of a space."""

import math
from collections.abc import Sequence
from itertools import islice, product
from typing import Any, ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from model_name.core.metrics import Metric
from model_name.errors import ConfigError
from model_name.utils.search.searcher import Searcher
from model_name.utils.search.spaces import Params
from model_name.utils.search.trials import Trial


class GridSearcher(Searcher):
    """Tries every combination; the last hyperparameter of the space varies fastest.

    Attributes:
        points: Number of values of a range; lists of choices are tried in full.
        max_trials: Maximum size of the grid.
    """

    UNFINGERPRINTED: ClassVar[frozenset[str]] = Searcher.UNFINGERPRINTED | {"max_trials"}

    KIND: Literal["GridSearcher"] = "GridSearcher"
    points: int = Field(3, ge=2)
    max_trials: int = Field(1000, ge=1)

    @override
    def count(self) -> int:
        size = math.prod(len(values) for values in self._axes)
        if size > self.max_trials:
            raise ConfigError(
                f"the grid has {size:,} points, more than max_trials: {self.max_trials:,}",
                hint="take fewer points or hyperparameters, raise max_trials, or use KIND: OptunaSearcher",
            )
        return 1 + size

    @override
    def suggest(self, number: int, before: Sequence[Trial], metric: Metric) -> Params:
        values = next(islice(product(*self._axes), number - 1, None))
        return dict(zip(self.space, values, strict=True))

    @property
    def _axes(self) -> list[list[Any]]:
        return [dimension.grid(self.points) for dimension in self.space.values()]
