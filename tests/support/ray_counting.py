"""Search with Ray of a model that logs its fits, in a module that the worker processes of Ray can import."""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import psutil

from model_name.core import dataframes
from model_name.core.metrics import Metric
from model_name.core.models import LinearModel
from model_name.core.schemas import TableSchema
from model_name.errors import DataError
from model_name.utils.search.objective import SearchProblem
from model_name.utils.search.ray_search import RaySearcher
from model_name.utils.splitters import TimeSplitter

FAILING_ALPHA = 13.0
CHOICES = [0.1, 1.0, 10.0, FAILING_ALPHA, 1e3, 1e5]
SCHEMA = TableSchema.model_validate(
    {
        "name": "things",
        "target": {"name": "y", "task": "regression"},
        "columns": {"when": {"kind": "datetime"}, "size": {"kind": "numeric"}},
        "time": "when",
    }
)


class LoggedFit(LinearModel):
    """Linear model that logs each fit, sleeps in it, and fails for one value of its hyperparameter."""

    KIND: Literal["LoggedFit"] = "LoggedFit"

    def fit_matrix(self, matrix, targets, context):
        if self.alpha == FAILING_ALPHA:
            raise DataError("alpha 13 fails")
        time.sleep(0.2)
        super().fit_matrix(matrix, targets, context)
        with Path(os.environ["FIT_LOG"]).open("a") as file:
            file.write(json.dumps([self.alpha, len(matrix), "TORCHELASTIC_RUN_ID" in os.environ]) + "\n")


def table():
    random = np.random.default_rng(0)
    size = random.normal(size=200)
    when = pd.date_range("2024-01-01", periods=200, freq="h")
    frame = pd.DataFrame({"when": when, "size": size, "y": 3 * size + random.normal(0, 0.1, 200)})
    return dataframes.check_frame(frame, SCHEMA).frame


def search(searcher, journal=None, progress=None):
    problem = SearchProblem(LoggedFit(), SCHEMA, table(), Metric(name="rmse"), TimeSplitter())
    return searcher.search(problem, journal=journal, progress=progress)


def collect_listening_addresses(addresses, done):
    """Collect the addresses on which child processes listen, until `done` is set."""
    while not done.wait(0.3):
        for child in psutil.Process().children(recursive=True):
            try:
                addresses |= {
                    (child.name(), socket.laddr.ip) for socket in child.connections("inet") if socket.status == "LISTEN"
                }
            except psutil.Error:
                continue


def main():
    """Search with the settings in the arguments, and write the result to a file, because stdout must stay empty."""
    out, changes = Path(sys.argv[1]), json.loads(sys.argv[2])
    addresses, done, reports = set(), threading.Event(), []
    thread = threading.Thread(target=collect_listening_addresses, args=(addresses, done))
    thread.start()
    settings = {"space": {"alpha": CHOICES}, "trials": 8, "folds": 2, "concurrent": 2, "seed": 1} | changes
    lock = threading.Lock()  # cannot be pickled; a progress bar on a terminal has one too

    def progress(*report):
        with lock:
            reports.append(report)

    try:
        result = search(RaySearcher.model_validate(settings), out.parent / "search.jsonl", progress)
    finally:
        done.set()
        thread.join()
    trials = [
        {"alpha": trial.params["alpha"], "score": trial.score, "folds": trial.fold_scores, "reason": trial.reason}
        for trial in result.trials
    ]
    children = [child.name() for child in psutil.Process().children(recursive=True)]
    document = {"trials": trials, "best": result.best.params, "reports": reports, "children": children}
    out.write_text(json.dumps(document | {"listening": sorted(addresses)}))


if __name__ == "__main__":
    main()
