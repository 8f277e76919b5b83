"""Features of a single row agree with those of a table."""

from datetime import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_name.core.features import (
    AnyFeature,
    CrossFeature,
    DatePartFeature,
    Features,
    HolidayFeature,
    MissingIndicator,
    NumericFeature,
    OneHotFeature,
    OrdinalFeature,
    ProductFeature,
    TargetEncodedFeature,
)
from model_name.core.features.datetimes import CYCLE_LENGTHS, DATETIME_PARTS
from model_name.core.schemas.row_validation import typed_rows_to_columns

ORIGIN = 19_723.25
NUMBERS: dict[str, AnyFeature] = {
    "unchanged": NumericFeature(name="x", source="x"),
    "imputed": NumericFeature(name="x", source="x", fill=2.5),
    "standardised": NumericFeature(name="x", source="x", scale="standard", center=3.3, spread=1e-3),
    "imputed and standardised": NumericFeature(name="x", source="x", scale="standard", center=3.3, spread=7.0, fill=-1),
    "logarithm": NumericFeature(name="x", source="x", scale="log"),
    "rank": NumericFeature(name="x", source="x", scale="quantile", knots=(0.0, 1.0, 5.0), ranks=(0.0, 0.5, 1.0)),
    "missing number": MissingIndicator(name="x", source="x"),
    "product": ProductFeature(name="p", source="x", other="y"),
}
CATEGORIES: dict[str, AnyFeature] = {
    "code": OrdinalFeature(name="c", source="c", values=("a", "b", "(other)"), rare=("r",)),
    "one-hot": OneHotFeature(name="c", source="c", values=("a", "r")),
    "rate": TargetEncodedFeature(name="c", source="c", values=("a", "b"), rates=(0.1, 1e-9), prior=0.3),
    "missing category": MissingIndicator(name="c", source="c"),
    "cross": CrossFeature(name="k", source="c", other="d", values=("a & b", "b & b")),
}
DATETIMES: dict[str, AnyFeature] = {
    **{part: DatePartFeature(name="t", source="t", part=part) for part in DATETIME_PARTS},
    "since an origin": DatePartFeature(name="t", source="t", part="elapsed", origin=ORIGIN),
    **{
        f"{wave} of {part}": DatePartFeature(name="t", source="t", part=part, wave=wave)
        for part in CYCLE_LENGTHS
        for wave in ("sin", "cos")
    },
    "holiday": HolidayFeature(name="t", source="t", days=("2024-12-25", "2024-01-01", "0001-01-01")),
    "no holiday": HolidayFeature(name="t", source="t", days=()),
}
FEATURES = NUMBERS | CATEGORIES | DATETIMES

ROWS = st.fixed_dictionaries(
    {
        "x": st.floats(allow_infinity=False, width=32),
        "y": st.floats(allow_infinity=False, width=32),
        "c": st.sampled_from(["a", "b", "r", "z", "", None]),
        "d": st.sampled_from(["b", "z", None]),
        "t": st.datetimes()
        | st.datetimes(datetime(2023, 12, 31), datetime(2025, 1, 2))
        | st.just(datetime(2024, 12, 25)),
    }
)


@pytest.mark.parametrize("feature", [pytest.param(feature, id=name) for name, feature in FEATURES.items()])
def test_the_feature_of_a_row_equals_that_of_a_table(feature: AnyFeature) -> None:
    @settings(deadline=None)
    @given(st.lists(ROWS, min_size=1, max_size=9))
    def check(rows: list[dict[str, Any]]) -> None:
        by_table = np.asarray(feature.transform(typed_rows_to_columns(rows)), dtype=np.float64)
        np.testing.assert_array_equal([feature.transform_row(row) for row in rows], by_table)

    check()


@settings(deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=9))
def test_the_matrix_of_rows_equals_that_of_a_table(rows: list[dict[str, Any]]) -> None:
    features = Features(columns=tuple(FEATURES.values()))
    with np.errstate(over="ignore"):
        by_row, by_table = features.transform_rows(rows), features.transform(typed_rows_to_columns(rows))
    assert by_row.dtype == by_table.dtype == np.float32
    np.testing.assert_array_equal(by_row, by_table)


def test_every_kind_of_feature_is_tested() -> None:
    kinds = {member.model_fields["KIND"].default for member in AnyFeature.__origin__.__args__}
    assert {feature.KIND for feature in FEATURES.values()} == kinds
