"""Test tiers: the marker of each folder, and the order of the files.

`python -m tests.support.tiers build/tests.xml` writes the durations of a run to `tests/durations.json`.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
DURATIONS = ROOT / "tests/durations.json"
MARKERS = {
    "tests/benchmarks/": "benchmark",
    "tests/cli/": "integration",
    "tests/e2e/": "fault",
    "tests/explainer/": "integration",
    "tests/jobs/": "integration",
    "tests/kafka/": "kafka",
    "tests/local_kafka/": "kafka",
    "tests/pipelines/": "integration",
    "tests/serving/model_card/test_card_browser.py": "extended",
    "tests/serving/rest/test_fast_path.py": "integration",
    "tests/serving/rest/test_protocol.py": "integration",
    "tests/serving/test_": "integration",  # server processes
    "tests/training/": "integration",
    "tests/utils/search/test_ray_search.py": "extended",
}
"""Marker of all tests below a path prefix; other tests have no marker and belong to the unit tier."""


def marker_of(path: Path) -> str | None:
    """Return the marker of a test file, or None for the unit tier."""
    name = path.relative_to(ROOT).as_posix()
    return next((marker for prefix, marker in MARKERS.items() if name.startswith(prefix)), None)


def mark_and_sort(items: list[pytest.Item]) -> None:
    """Mark the tests by their folder and sort the files, the longest first.

    With two workers the longest files must not come last, or one worker idles while the other finishes them. A file
    without a known duration comes first.
    """
    durations = json.loads(DURATIONS.read_text(encoding="utf-8"))
    for item in items:
        if marker := marker_of(item.path):
            item.add_marker(marker)
    items.sort(key=lambda item: -durations.get(item.path.relative_to(ROOT).as_posix(), float("inf")))


def sum_durations(report: Path, files: Iterable[Path]) -> dict[str, float]:
    """Sum the durations of a JUnit report by test file, in seconds, the longest first."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}
    sums: Counter[str] = Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.attrib["classname"]
        while name and name not in modules:
            name = name.rpartition(".")[0]
        if name:
            sums[modules[name].relative_to(ROOT).as_posix()] += float(case.attrib["time"])
    return {file: round(seconds, 1) for file, seconds in sums.most_common()}


if __name__ == "__main__":
    durations = sum_durations(Path(sys.argv[1]), ROOT.glob("tests/**/test_*.py"))
    DURATIONS.write_text(json.dumps(durations, indent=1) + "\n", encoding="utf-8")
