"""Features: transformations of typed columns into the matrix that a model is fitted on.

Imports only numpy and pydantic, because servers import it; `fitting` and `holidays` are not imported here.
"""

from model_name.core.features.categorical import OneHotFeature, OrdinalFeature, TargetEncodedFeature
from model_name.core.features.datetimes import DatePartFeature, HolidayFeature
from model_name.core.features.feature import Feature, Matrix
from model_name.core.features.interactions import CrossFeature, ProductFeature
from model_name.core.features.numeric import MissingIndicator, NumericFeature
from model_name.core.features.transforms import AnyFeature, Features

__all__ = [
    "AnyFeature",
    "CrossFeature",
    "DatePartFeature",
    "Feature",
    "Features",
    "HolidayFeature",
    "Matrix",
    "MissingIndicator",
    "NumericFeature",
    "OneHotFeature",
    "OrdinalFeature",
    "ProductFeature",
    "TargetEncodedFeature",
]
