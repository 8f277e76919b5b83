"""What the training part of a column looked like, for people."""

from collections.abc import Sequence

import numpy as np

from model_name.core.formatting import number, percent
from model_name.core.schemas.columns import Column
from model_name.serving.bundle import ColumnProfile

BINS = 24
SHOWN_VALUES = 3
BOOLEANS = {"1.0": "true", "0.0": "false"}  # a checked frame holds booleans as numbers


def profile_words(column: Column, profile: ColumnProfile) -> str:
    """What a column holds in the training part."""
    if profile.quantiles:
        middle = profile.quantiles[len(profile.quantiles) // 2]
        return f"{number(profile.quantiles[0])} … {number(middle)} … {number(profile.quantiles[-1])}"
    names = BOOLEANS if column.kind == "boolean" else {}
    first = list(profile.shares.items())[:SHOWN_VALUES]
    words = ", ".join(f"{names.get(value, value)} {percent(share)}" for value, share in first)
    left = len(profile.shares) - SHOWN_VALUES
    return f"{words}, {left:,} more" if left > 0 else words


def bin_shares(quantiles: Sequence[float]) -> list[float]:
    """The share of the rows in each of equally wide bins, from equally spaced quantiles."""
    low, high = quantiles[0], quantiles[-1]
    if low == high:
        return [1.0]
    # From 0 to 1, because the slope of an interpolation over a tiny span would be infinite.
    places = (np.asarray(quantiles) - low) / (high - low)
    below = np.interp(np.linspace(0, 1, BINS + 1), places, np.linspace(0, 1, len(quantiles)))
    below[0] = 0.0
    return [float(share) for share in np.diff(below)]
