"""Tables to compare models on: the examples, tables that packages ship, and one whose structure is known.

Those of "An Introduction to Statistical Learning" come from the package ISLP (BSD licence), which is only downloaded
and read, never installed.
"""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measuring import BUILD

FOLDER = BUILD / "tables"
PACKAGE = "ISLP==0.4.0"
DELAY_ROWS = 40_000  # of the newest
FRIEDMAN_ROWS = 4000


@dataclass(frozen=True)
class Source:
    """A table and what is predicted of it.

    Attributes:
        read: Reads it.
        target: The column to predict.
        schema: The schema of the example, where it is one; the others are given to `model-name init`.
    """

    read: Callable[[], pd.DataFrame]
    target: str
    schema: str = ""


def sources() -> dict[str, Source]:
    """All of them by name, regressions first."""
    return {
        "flights": Source(lambda: pd.read_parquet("data/flights.parquet"), "departures", "confs/flights/schema.yaml"),
        "bikeshare": Source(lambda: shipped("Bikeshare", "casual", "registered", "atemp"), "bikers"),
        "wage": Source(lambda: shipped("Wage", "logwage", "region"), "wage"),
        "college": Source(lambda: shipped("College", "Accept", "Enroll", index=True), "Apps"),
        "carseats": Source(lambda: shipped("Carseats"), "Sales"),
        "credit": Source(lambda: shipped("Credit"), "Balance"),
        "boston": Source(lambda: shipped("Boston"), "medv"),
        "diabetes": Source(lambda: of_sklearn("load_diabetes"), "target"),
        "friedman": Source(friedman, "target"),
        "delays": Source(delays, "delayed", "confs/delays/schema.yaml"),
        "default": Source(lambda: shipped("Default"), "default"),
        "oj": Source(lambda: shipped("OJ"), "Purchase"),
        "caravan": Source(lambda: shipped("Caravan"), "Purchase"),
        "cancer": Source(lambda: of_sklearn("load_breast_cancer"), "target"),
    }


def shipped(name: str, *leaks: str, index: bool = False) -> pd.DataFrame:
    """A table of ISLP, without columns that tell the target."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not list(FOLDER.glob("ISLP-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(FOLDER), PACKAGE]
        subprocess.run(command, check=True)
    with zipfile.ZipFile(next(FOLDER.glob("ISLP-*.whl"))) as wheel, wheel.open(f"ISLP/data/{name}.csv") as file:
        table = pd.read_csv(file)
    if index or table.columns[0].startswith("Unnamed"):
        table = table.iloc[:, 1:]
    return table.drop(columns=[leak for leak in leaks if leak in table])


def of_sklearn(name: str) -> pd.DataFrame:
    """A table of scikit-learn."""
    from sklearn import datasets

    frame: pd.DataFrame = getattr(datasets, name)(as_frame=True).frame
    return frame


def friedman() -> pd.DataFrame:
    """Friedman's first function (1991) of five of ten uniform numbers, with noise of deviation 1."""
    from sklearn.datasets import make_friedman1

    numbers, target = make_friedman1(FRIEDMAN_ROWS, 10, noise=1.0, random_state=0)
    return pd.DataFrame(numbers, columns=[f"x{place}" for place in range(10)]).assign(target=target)


def delays() -> pd.DataFrame:
    """The newest flights; `python data/make.py delays` makes the table."""
    path = Path("data/delays.parquet")
    if not path.exists():
        subprocess.run([sys.executable, "data/make.py", "delays"], check=True)
    table = pd.read_parquet(path)
    return table.iloc[np.sort(np.argsort(table["time_hour"].to_numpy(), kind="stable")[-DELAY_ROWS:])]
