"""Quantile bins of the piecewise-linear encoding of numbers (Gorishniy et al. 2022), for linear models and networks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOAT32_TINY = float(np.finfo(np.float32).tiny)


def quantile_bins(known: NDArray[np.float64], count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Compute the left edges of the bins between quantiles and their inverse widths; both are 0 for unused bins."""
    edges, steepness = np.zeros(count), np.zeros(count)
    if len(known):
        quantiles = np.unique(np.quantile(known, np.linspace(0, 1, count + 1)).astype(np.float32)).astype(np.float64)
        widths = np.diff(quantiles)
        edges[: len(widths)] = quantiles[:-1]
        steepness[: len(widths)] = 1 / np.maximum(widths, FLOAT32_TINY)
    return edges, steepness
