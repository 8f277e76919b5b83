"""Serving benchmark: measurements and limits."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import serving
from benchmarks.servers import load_test, server_specs
from benchmarks.servers.load_generators import LoadResult
from benchmarks.servers.load_test import CASES, RunResult
from benchmarks.servers.log_test import LogFigures
from benchmarks.servers.served_model import ServedModel
from benchmarks.servers.server_specs import all_servers

ROOT = Path(__file__).parents[2]
MODEL = ServedModel(name="flights", bundle="", pyfunc="", rows=[], datatypes={}, expected=[2.0, 4.0], spread=1.0)
RATES = {"ours": 10_000.0, "echo": 2000.0, "mlserver": 500.0, "mlflow": 100.0}


def run_of(rate, *, p50=1.0, p99=5.0, many=1.0, resident_mb=200.0, ready_seconds=2.0, cases=CASES):
    measured = {case: LoadResult(rate, p50, p99) for case in cases}
    if "v1-1-c256" in measured:
        measured["v1-1-c256"] = LoadResult(rate * many, p50, p99)
    return RunResult(ready_seconds, resident_mb, measured, dropped=0.0)


def runs_of(**changes):
    return {name: [run_of(rate, **(changes if name == "ours" else {}))] * 3 for name, rate in RATES.items()}


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        pytest.param({}, None, id="all limits met"),
        pytest.param({"p99": 5.1}, "v1-1-c16: 1.02 times the p99 of echo is at most 1", id="a longer tail"),
        pytest.param({"p50": 1.2}, "v1-1-c1: 1.20 times the p50 of echo is at most 1.1", id="slow with one connection"),
        pytest.param(
            {"many": 0.8},
            "v1-1-c256: 0.80 times the requests/s of v1-1-c16 is at least 0.9",
            id="slow with many connections",
        ),
        pytest.param({"resident_mb": 270.0}, "270 MB are at most 260", id="much memory"),
        pytest.param({"ready_seconds": 4.2}, "ready in 4.2 s is at most 4 s", id="slow start"),
    ],
)
def test_benchmark_fails_if_this_server_misses_a_limit(workplace, changes, missed):
    assert serving.report(runs_of(**changes), all_servers(MODEL)) == (1 if missed else 0)
    found = json.loads((workplace / "build/benchmarks/serving.json").read_text())
    assert (False in found["limits"].values()) == bool(missed)
    assert missed is None or found["limits"][missed] is False


@pytest.mark.parametrize(("case", "other"), serving.MIN_RATIOS, ids=map(" ".join, serving.MIN_RATIOS))
def test_benchmark_fails_if_another_server_is_too_fast(workplace, case, other):
    # given another server that exceeds its limit slightly, in one case and most rounds
    runs = runs_of()
    close = run_of(RATES[other])
    close.measured[case] = LoadResult(RATES["ours"] / serving.MIN_RATIOS[case, other] * 1.01, 1.0, 5.0)
    runs[other] = [run_of(RATES[other]), close, close]
    # then the missed limit names it
    assert serving.report(runs, all_servers(MODEL)) == 1
    limits = json.loads((workplace / "build/benchmarks/serving.json").read_text())["limits"]
    (missed,) = [limit for limit, is_met in limits.items() if not is_met]
    assert missed.startswith(f"{case}: ")
    assert f"of {other} " in missed


def test_ratios_compare_runs_of_the_same_round(workplace):
    # given a machine that is three times slower in one round, for both servers
    ours, echo = ([run_of(rate), run_of(rate / 3), run_of(rate)] for rate in (9000.0, 3000.0))
    serving.report({"ours": ours, "echo": echo}, all_servers(MODEL))
    found = json.loads((workplace / "build/benchmarks/serving.json").read_text())
    assert found["ratios"]["v1-1-c16 to echo"] == pytest.approx([3.0] * 3)


def test_limits_of_cases_that_were_not_measured_are_skipped(workplace):
    # given a single case of this server
    alone = {"ours": [run_of(100.0, cases=["v1-1-c16"])]}
    assert serving.report(alone, all_servers(MODEL), name="serving-part") == 0
    limits = json.loads((workplace / "build/benchmarks/serving-part.json").read_text())["limits"]
    assert list(limits) == ["200 MB are at most 260", "ready in 2.0 s is at most 4 s"]


@pytest.mark.parametrize(("p99", "code"), [pytest.param(49.0, 0, id="short"), pytest.param(51.0, 1, id="long")])
def test_probe_beside_large_requests_is_limited(workplace, monkeypatch, p99, code):
    monkeypatch.setattr(serving.probe_test, "run_probe_test", lambda *_: (LoadResult(100.0, 2.0, p99), 40))
    monkeypatch.setattr(server_specs, "has_prediction_log", lambda: False)
    assert serving.report_probes(MODEL, 1) == code
    written = json.loads((workplace / "build/benchmarks/serving-probes.json").read_text())
    assert [(row["large requests"], row["p99 ms"]) for row in written["rows"]] == [("v1", p99), ("v2", p99)]


def log_figures(**changes):
    """Create the figures of a log that meets all limits."""
    figures = {
        "written": 950.0, "dropped": 0.0, "waiting": 500.0, "probability": 1.0, "resident_mb": 120.0, "cpu_us": 2.0,
        "logged_share": 1.0, "unwritten": 0, "end_seconds": 0.5, "killed_rows": 300.0, "killed_seconds": 0.3,
    }  # fmt: skip
    return LogFigures(**figures | changes)


@pytest.mark.parametrize(
    ("rate", "changes", "missed"),
    [
        pytest.param(950.0, {}, None, id="a log that is cheap and loses nothing"),
        pytest.param(850.0, {}, "0.85 of the requests/s without the log", id="fewer requests"),
        pytest.param(950.0, {"cpu_us": 20.0}, "20.00 us per row", id="much time of the processor"),
        pytest.param(950.0, {"dropped": 7.0}, "14 rows dropped", id="dropped rows"),
        pytest.param(950.0, {"unwritten": 8}, "8 rows unwritten at SIGTERM", id="rows unwritten at the end"),
        pytest.param(950.0, {"killed_seconds": 1.5}, "1.50 s of rows lost at SIGKILL", id="a late log"),
        pytest.param(950.0, {"resident_mb": 300.0}, "300 MB", id="much memory"),
    ],
)
def test_cost_of_the_log_is_limited(workplace, rate, changes, missed):
    plain, logged = [LoadResult(1000.0, 1.0, 2.0)] * 3, [LoadResult(rate, 1.0, 2.0)] * 3
    code = serving.report_log_cost(
        "v1-1-c16", plain, logged, [log_figures(), log_figures(**changes), log_figures(**changes)]
    )
    written = json.loads((workplace / "build/benchmarks/serving-log.json").read_text())
    assert written["ratios"] == pytest.approx([rate / 1000] * 3)
    not_met = [limit for limit, is_met in written["limits"].items() if not is_met]
    assert code == bool(missed) == len(not_met)
    assert missed is None or missed in not_met[0]


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        pytest.param([2.0], "answered 1 predictions for 2 rows", id="too few"),
        pytest.param([2.0, 4.1], "others than the pyfunc, off by 0.025", id="different"),
    ],
)
def test_server_with_wrong_predictions_is_not_measured(predictions, message):
    with pytest.raises(SystemExit, match=message):
        load_test.check_predictions(MODEL, all_servers(MODEL)["ours"], predictions, 2)


def test_echo_is_checked_for_the_number_of_predictions_only():
    load_test.check_predictions(MODEL, all_servers(MODEL)["echo"], [0.0, 0.0], 2)


@pytest.mark.parametrize("has_log", [True, False])
def test_this_server_logs_predictions_if_it_can(monkeypatch, has_log):
    monkeypatch.setattr(server_specs, "has_prediction_log", lambda: has_log)
    logged, plain = (
        server_specs.this_server(MODEL, is_logging=is_logging).command(1, 2) for is_logging in (True, False)
    )
    assert ("--prediction_log" in logged) == has_log
    assert "--prediction_log" not in plain


def test_cost_of_a_missing_log_is_an_error(monkeypatch):
    monkeypatch.setattr(serving, "has_prediction_log", lambda: False)
    with pytest.raises(SystemExit, match="has no --prediction_log"):
        serving.with_and_without_log(MODEL)


@pytest.mark.parametrize("option", ["--only", "--cases"])
def test_unknown_name_is_rejected_with_the_known_ones(option, capsys):
    with pytest.raises(SystemExit):
        serving.parse_arguments([option, "nothing"])
    assert "nothing: known are" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not all(map(shutil.which, ("wrk", "h2load"))), reason="wrk or h2load is not installed")
def test_this_server_and_the_echo_are_measured_with_every_protocol(workplace, monkeypatch):
    # given a folder of its own with the example
    for name in ("confs", "data"):
        (workplace / name).symlink_to(ROOT / name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setitem(load_test.ENVIRONMENT, "PYTHONPATH", str(ROOT))
    # when both are loaded for a second
    model = serving.load_served_model()
    servers = serving.select_servers(model, ["ours", "echo"])
    results = serving.run_rounds(model, servers, ["v1-1-c16", "v2-1-c16", "grpc-1-c16"], rounds=1, seconds=1)
    load, per_minute = serving.probe_test.run_probe_test(model, servers["ours"], "v2", 1)
    # then each has a rate, and the memory of this server is limited
    assert {load.rate > 0 for runs in results.values() for load in runs[0].measured.values()} == {True}
    assert results["ours"][0].measured.keys() == {"v1-1-c16", "v2-1-c16", "grpc-1-c16"}
    assert 50 < results["ours"][0].resident_mb < 400
    # and the probe beside large requests too
    assert load.rate > 0
    assert per_minute > 0
