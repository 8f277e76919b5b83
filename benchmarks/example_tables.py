"""Tables on which models are compared: the examples, tables from packages, and a synthetic one with known structure.

The tables of "An Introduction to Statistical Learning" come from the package ISLP (BSD licence), which is only
downloaded and read, never installed.
"""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.harness import OUTPUT_DIRECTORY

DIRECTORY = OUTPUT_DIRECTORY / "tables"
PACKAGE = "ISLP==0.4.0"
DELAY_ROWS = 40_000  # the newest ones
FRIEDMAN_ROWS = 4000


@dataclass(frozen=True)
class TableSource:
    """A table with its target.

    Attributes:
        load: Function that loads the table.
        target: Column to predict.
        schema: Path of the schema of an example; empty to infer it as `model-name init` does.
    """

    load: Callable[[], pd.DataFrame]
    target: str
    schema: str = ""


def table_sources() -> dict[str, TableSource]:
    """Return all tables by name, regressions first."""
    return {
        "flights": TableSource(
            lambda: pd.read_parquet("data/flights.parquet"), "departures", "confs/flights/schema.yaml"
        ),
        "bikeshare": TableSource(lambda: load_islp("Bikeshare", "casual", "registered", "atemp"), "bikers"),
        "wage": TableSource(lambda: load_islp("Wage", "logwage", "region"), "wage"),
        "college": TableSource(lambda: load_islp("College", "Accept", "Enroll", index=True), "Apps"),
        "carseats": TableSource(lambda: load_islp("Carseats"), "Sales"),
        "credit": TableSource(lambda: load_islp("Credit"), "Balance"),
        "boston": TableSource(lambda: load_islp("Boston"), "medv"),
        "diabetes": TableSource(lambda: load_sklearn("load_diabetes"), "target"),
        "friedman": TableSource(make_friedman, "target"),
        "delays": TableSource(load_delays, "delayed", "confs/delays/schema.yaml"),
        "default": TableSource(lambda: load_islp("Default"), "default"),
        "oj": TableSource(lambda: load_islp("OJ"), "Purchase"),
        "caravan": TableSource(lambda: load_islp("Caravan"), "Purchase"),
        "cancer": TableSource(lambda: load_sklearn("load_breast_cancer"), "target"),
    }


def load_islp(name: str, *leaks: str, index: bool = False) -> pd.DataFrame:
    """Load a table of ISLP without columns that leak the target."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    if not list(DIRECTORY.glob("ISLP-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(DIRECTORY), PACKAGE]
        subprocess.run(command, check=True)
    with zipfile.ZipFile(next(DIRECTORY.glob("ISLP-*.whl"))) as wheel, wheel.open(f"ISLP/data/{name}.csv") as file:
        table = pd.read_csv(file)
    if index or table.columns[0].startswith("Unnamed"):
        table = table.iloc[:, 1:]
    return table.drop(columns=[leak for leak in leaks if leak in table])


def load_sklearn(name: str) -> pd.DataFrame:
    """Load a table of scikit-learn."""
    from sklearn import datasets

    frame: pd.DataFrame = getattr(datasets, name)(as_frame=True).frame
    return frame


def make_friedman() -> pd.DataFrame:
    """Generate Friedman's first function (1991) of five of ten uniform numbers, with noise of deviation 1."""
    from sklearn.datasets import make_friedman1

    numbers, target = make_friedman1(FRIEDMAN_ROWS, 10, noise=1.0, random_state=0)
    return pd.DataFrame(numbers, columns=[f"x{position}" for position in range(10)]).assign(target=target)


def load_delays() -> pd.DataFrame:
    """Load the newest flights of the table that `python data/make.py delays` makes."""
    path = Path("data/delays.parquet")
    if not path.exists():
        subprocess.run([sys.executable, "data/make.py", "delays"], check=True)
    table = pd.read_parquet(path)
    return table.iloc[np.sort(np.argsort(table["time_hour"].to_numpy(), kind="stable")[-DELAY_ROWS:])]
