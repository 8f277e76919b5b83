"""A model whose fits can be counted, in a module that the processes of Ray can import; and a search of it."""

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

UNLUCKY = 13.0
CHOICES = [0.1, 1.0, 10.0, UNLUCKY, 1e3, 1e5]
SCHEMA = TableSchema.model_validate(
    {
        "name": "things",
        "target": {"name": "y", "task": "regression"},
        "columns": {"when": {"kind": "datetime"}, "size": {"kind": "numeric"}},
        "time": "when",
    }
)


class Counted(LinearModel):
    """A line that leaves a mark for each fit, takes a moment for it, and has no luck with one hyperparameter."""

    KIND: Literal["Counted"] = "Counted"

    def fit_matrix(self, matrix, targets, context):
        if self.alpha == UNLUCKY:
            raise DataError("thirteen has no luck")
        time.sleep(0.2)
        super().fit_matrix(matrix, targets, context)
        with Path(os.environ["MARKS"]).open("a") as file:
            file.write(json.dumps([self.alpha, len(matrix), "TORCHELASTIC_RUN_ID" in os.environ]) + "\n")


def table():
    random = np.random.default_rng(0)
    size = random.normal(size=200)
    when = pd.date_range("2024-01-01", periods=200, freq="h")
    frame = pd.DataFrame({"when": when, "size": size, "y": 3 * size + random.normal(0, 0.1, 200)})
    return dataframes.check_frame(frame, SCHEMA).frame


def search(searcher, journal=None, progress=None):
    problem = SearchProblem(Counted(), SCHEMA, table(), Metric(name="rmse"), TimeSplitter())
    return searcher.search(problem, journal=journal, progress=progress)


def watch(found, done):
    """Where the processes that Ray starts here listen."""
    while not done.wait(0.3):
        for child in psutil.Process().children(recursive=True):
            try:
                found |= {(child.name(), one.laddr.ip) for one in child.connections("inet") if one.status == "LISTEN"}
            except psutil.Error:
                continue


def main():
    """Search as the arguments say, and write what was found to a file: stdout must stay empty."""
    out, changes = Path(sys.argv[1]), json.loads(sys.argv[2])
    listening, done, told = set(), threading.Event(), []
    thread = threading.Thread(target=watch, args=(listening, done))
    thread.start()
    given = {"space": {"alpha": CHOICES}, "trials": 8, "folds": 2, "concurrent": 2, "seed": 1} | changes
    lock = threading.Lock()  # what a bar on a terminal has, and no pickle takes

    def progress(*words):
        with lock:
            told.append(words)

    try:
        found = search(RaySearcher.model_validate(given), out.parent / "search.jsonl", progress)
    finally:
        done.set()
        thread.join()
    trials = [
        {"alpha": trial.params["alpha"], "score": trial.score, "folds": trial.fold_scores, "reason": trial.reason}
        for trial in found.trials
    ]
    children = [child.name() for child in psutil.Process().children(recursive=True)]
    document = {"trials": trials, "best": found.best.params, "told": told, "children": children}
    out.write_text(json.dumps(document | {"listening": sorted(listening)}))


if __name__ == "__main__":
    main()
