"""Linear pieces between the quantiles of a number (Gorishniy et al. 2022): what lines and networks bend by."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST = float(np.finfo(np.float32).tiny)


def pieces(known: NDArray[np.float64], count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Left edges of the pieces between quantiles, and one over their widths; zero for pieces that are not needed."""
    edges, steepness = np.zeros(count), np.zeros(count)
    if len(known):
        quantiles = np.unique(np.quantile(known, np.linspace(0, 1, count + 1)).astype(np.float32)).astype(np.float64)
        widths = np.diff(quantiles)
        edges[: len(widths)] = quantiles[:-1]
        steepness[: len(widths)] = 1 / np.maximum(widths, SMALLEST)
    return edges, steepness
