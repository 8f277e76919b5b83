"""Explanations: feature values of the explained rows."""

import numpy as np

from model_name.core import dataframes
from model_name.jobs.explanations import feature_values


def test_feature_values_are_the_inputs_of_the_model(fitted, make_schema, make_table):
    table = dataframes.check_frame(make_table("regression"), make_schema("regression")).frame
    model = fitted("BoostedTrees", "regression")
    values = feature_values(model, table)
    assert list(values) == model.features.names
    assert list(values["group"]) == list(table["group"])
    assert values["mark"].isna().tolist() == table["mark"].isna().tolist()
    np.testing.assert_allclose(values["size"], table["size"])


def test_values_of_sensitive_columns_are_left_out(fitted, make_schema, make_table, monkeypatch):
    schema = make_schema("regression")
    columns = schema.columns | {"group": schema.columns["group"].model_copy(update={"sensitive": True})}
    model = fitted("BoostedTrees", "regression").model_copy()
    model._schema = schema.model_copy(update={"columns": columns})
    table = dataframes.check_frame(make_table("regression"), schema).frame
    assert "group" not in feature_values(model, table)
