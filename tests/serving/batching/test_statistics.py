"""Statistics of batches, as Triton's statistics extension defines them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from model_name.errors import DataError, ModelNameError
from model_name.serving.batching.batcher import AdaptiveBatcher
from model_name.serving.batching.requests import BatchResult
from model_name.serving.batching.statistics import MAX_LISTED_ROWS, MAX_VERSIONS, ModelStatistics, VersionStatistics
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols.triton import statistics_document
from model_name.serving.protocols.v1 import V1Request
from tests.support.clients import VERSION
from tests.support.tables import Row


def infer(plane: DataPlane, bodies: list[Any]) -> VersionStatistics:
    """Infer requests one after another, and return the statistics."""

    async def scenario() -> VersionStatistics:
        batcher = AdaptiveBatcher(plane, Limits())
        for number, body in enumerate(bodies):
            try:
                await batcher.infer(V1Request(json.dumps(body).encode(), str(number)))
            except ModelNameError:
                continue
        await asyncio.to_thread(batcher.close)
        return batcher.statistics.of_version(VERSION)

    return asyncio.run(scenario())


def test_requests_rows_and_failures_are_counted(planes: dict[str, DataPlane], rows: list[Row]) -> None:
    # given
    row = rows[0]
    bodies = [{"instances": [row]}, {"instances": rows}, {"instances": [row]}, {"instances": [{}]}, "none"]
    # when
    statistics = infer(planes["regression"], bodies)
    # then
    assert (statistics.succeeded, statistics.failed) == (3, 2)
    assert (statistics.rows, statistics.batches) == (2 + len(rows), 3)
    assert {size: batches.count for size, batches in statistics.by_rows.items()} == {1: 2, len(rows): 1}


def test_the_phases_of_a_request_are_parts_of_its_time(planes: dict[str, DataPlane], rows: list[Row]) -> None:
    statistics = infer(planes["regression"], [{"instances": rows}] * 5)
    phases = statistics.phases
    parts = [statistics.queue_seconds, phases.decode, phases.predict, phases.encode]
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(statistics.success_seconds)
    assert statistics.by_rows[len(rows)].predict == pytest.approx(phases.predict)


def test_requests_of_one_batch_each_have_its_whole_time(planes: dict[str, DataPlane], rows: list[Row]) -> None:
    async def scenario() -> VersionStatistics:
        batcher = AdaptiveBatcher(planes["regression"], Limits())
        requests = [V1Request(json.dumps({"instances": rows[:1]}).encode(), str(number)) for number in range(4)]
        await asyncio.gather(*map(batcher.infer, requests))
        return batcher.statistics.of_version(VERSION)

    statistics = asyncio.run(scenario())
    assert (statistics.succeeded, statistics.batches) == (4, 1)
    assert statistics.phases.predict == pytest.approx(4 * statistics.by_rows[4].predict)


def test_a_version_starts_without_batches_and_few_versions_are_kept() -> None:
    statistics = ModelStatistics()
    for version in "1234":
        assert statistics.of_version(version) == VersionStatistics()
        statistics.add(version, [V1Request(b"", "1")], BatchResult([DataError("failed")]), 0.0)
    assert [statistics.of_version(version).failed for version in "1234"] == [0] * (4 - MAX_VERSIONS) + [
        1
    ] * MAX_VERSIONS


def test_a_failure_of_the_model_is_counted(planes: dict[str, DataPlane], rows: list[Row]) -> None:
    def fail(*_: Any) -> BatchResult:
        raise RuntimeError("the model is broken")

    async def scenario() -> VersionStatistics:
        batcher = AdaptiveBatcher(planes["regression"], Limits(), compute=fail)
        with pytest.raises(ModelNameError):
            await batcher.infer(V1Request(json.dumps({"instances": rows}).encode(), "1"))
        return batcher.statistics.of_version(VERSION)

    statistics = asyncio.run(scenario())
    assert (statistics.succeeded, statistics.failed) == (0, 1)
    assert statistics.fail_seconds > 0


def test_responses_that_are_in_no_group_are_counted_as_successes() -> None:
    # Given responses of an explainer
    requests = [V1Request(b"", str(number)) for number in range(3)]
    result = BatchResult([b"{}", DataError("failed"), b"{}"])
    # when
    statistics = ModelStatistics()
    statistics.add("1", requests, result, 0.0)
    # then
    found = statistics.of_version("1")
    assert (found.succeeded, found.failed, found.rows) == (2, 1, 0)


def test_large_batches_are_counted_but_not_listed_by_size(planes: dict[str, DataPlane], rows: list[Row]) -> None:
    count = MAX_LISTED_ROWS + 1
    statistics = infer(planes["regression"], [{"instances": [rows[0]] * count}])
    assert (statistics.rows, statistics.batches, statistics.by_rows) == (count, 1, {})


def test_the_document_has_the_fields_of_triton(planes: dict[str, DataPlane], rows: list[Row]) -> None:
    statistics = infer(planes["regression"], [{"instances": rows}])
    (model,) = statistics_document("regression", VERSION, statistics)["model_stats"]
    assert (model["name"], model["version"]) == ("regression", VERSION)
    assert (model["inference_count"], model["execution_count"]) == (len(rows), 1)
    durations = model["inference_stats"]
    names = ["success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"]
    assert list(durations) == names
    assert {name for name, duration in durations.items() if duration["count"]} == {*names} - {
        "fail",
        "cache_hit",
        "cache_miss",
    }
    assert durations["success"]["ns"] == pytest.approx(statistics.success_seconds * 1e9, abs=1)
    assert model["batch_stats"][0]["batch_size"] == len(rows)
