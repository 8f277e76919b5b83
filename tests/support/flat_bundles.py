"""Bundles over the flats, for servers and Kafka workers."""

from pathlib import Path

from model_name.core import dataframes
from model_name.core.decisions.decision import Decision, PredictionIntervals
from model_name.core.models import BoostedTrees
from model_name.serving.bundle import Bundle
from model_name.training.export import export_bundle, set_version
from tests.support.tables import flat_schema, flat_table

VERSION = "7"
INTERVALS = PredictionIntervals(levels=(0.8, 0.9), edges=(300.0,), halves=((10.0, 20.0), (15.0, 30.0)), rows=300)
"""Prediction intervals of the regression bundle."""


def make_bundle(task: str, directory: Path) -> Bundle:
    """Fit a few trees on the flats and export them."""
    schema = flat_schema(task)
    table = dataframes.check_frame(flat_table(task), schema).frame
    train, test = table[:300], table[300:]
    model = BoostedTrees(max_iter=10).fit(schema, train)
    if task == "regression":
        model.set_decision(Decision(intervals=INTERVALS))
    bundle = export_bundle(model, directory, train, test, name=task, run_id="0" * 32, metrics={})
    set_version(bundle, semver="1.2.3", version=VERSION)
    return Bundle.load(directory)
