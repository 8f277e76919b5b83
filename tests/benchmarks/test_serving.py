"""The benchmark of serving: what it holds against its limits, and that it measures."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import serving
from benchmarks.servers import peers, rounds
from benchmarks.servers.loads import Load
from benchmarks.servers.peers import servers
from benchmarks.servers.rounds import CASES, Run
from benchmarks.servers.subject import Subject

ROOT = Path(__file__).parents[2]
SUBJECT = Subject(name="flights", bundle="", pyfunc="", rows=[], datatypes={}, expected=[2.0, 4.0], spread=1.0)
RATES = {"ours": 10_000.0, "echo": 2000.0, "mlserver": 500.0, "mlflow": 100.0}


def made(rate, *, p99=5.0, resident_mb=200.0, ready_seconds=2.0, cases=CASES):
    return Run(ready_seconds, resident_mb, {case: Load(rate, 1.0, p99) for case in cases}, dropped=0.0)


def runs_of(**changes):
    return {name: [made(rate, **(changes if name == "ours" else {}))] * 3 for name, rate in RATES.items()}


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        pytest.param({}, None, id="all hold"),
        pytest.param({"p99": 5.1}, "v1-1-c16: 1.02 times the p99 of echo is at most 1", id="a longer tail"),
        pytest.param({"resident_mb": 270.0}, "270 MB are at most 260", id="heavy"),
        pytest.param({"ready_seconds": 4.2}, "ready in 4.2 s is at most 4 s", id="late"),
    ],
)
def test_the_benchmark_fails_when_this_server_misses_a_limit(workplace, changes, missed):
    assert serving.judge(runs_of(**changes), servers(SUBJECT)) == (1 if missed else 0)
    found = json.loads((workplace / "build/benchmarks/serving.json").read_text())
    assert (False in found["limits"].values()) == bool(missed)
    assert missed is None or found["limits"][missed] is False


@pytest.mark.parametrize(("case", "peer"), serving.MIN_RATIOS, ids=map(" ".join, serving.MIN_RATIOS))
def test_the_benchmark_fails_when_a_peer_comes_too_close(workplace, case, peer):
    # given a peer that is a little faster than it may be, in one case and most rounds
    runs = runs_of()
    close = made(RATES[peer])
    close.measured[case] = Load(RATES["ours"] / serving.MIN_RATIOS[case, peer] * 1.01, 1.0, 5.0)
    runs[peer] = [made(RATES[peer]), close, close]
    # then it is named
    assert serving.judge(runs, servers(SUBJECT)) == 1
    limits = json.loads((workplace / "build/benchmarks/serving.json").read_text())["limits"]
    (missed,) = [sentence for sentence, holds in limits.items() if not holds]
    assert missed.startswith(f"{case}: ")
    assert f"of {peer} " in missed


def test_ratios_are_of_the_same_round(workplace):
    # given a machine that is three times as slow in one round, for both
    ours, echo = ([made(rate), made(rate / 3), made(rate)] for rate in (9000.0, 3000.0))
    serving.judge({"ours": ours, "echo": echo}, servers(SUBJECT))
    found = json.loads((workplace / "build/benchmarks/serving.json").read_text())
    assert found["ratios"]["v1-1-c16 to echo"] == pytest.approx([3.0] * 3)


def test_what_was_not_measured_is_not_held_against_a_limit(workplace):
    # given one case of this server alone
    alone = {"ours": [made(100.0, cases=["v1-1-c16"])]}
    assert serving.judge(alone, servers(SUBJECT), name="serving-part") == 0
    limits = json.loads((workplace / "build/benchmarks/serving-part.json").read_text())["limits"]
    assert list(limits) == ["200 MB are at most 260", "ready in 2.0 s is at most 4 s"]


@pytest.mark.parametrize(("logged", "code"), [pytest.param(950.0, 0, id="cheap"), pytest.param(850.0, 1, id="dear")])
def test_the_price_of_the_log_is_held_against_its_limit(workplace, logged, code):
    found = {"ours": [made(logged)] * 3, "without": [made(1000.0)] * 3}
    assert serving.judge_log(found) == code
    written = json.loads((workplace / "build/benchmarks/serving-log.json").read_text())
    assert written["ratios"]["v1-1-c16"] == pytest.approx([logged / 1000] * 3)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        pytest.param([2.0], "answered 1 predictions for 2 rows", id="too few"),
        pytest.param([2.0, 4.1], "others than the pyfunc, off by 0.025", id="others"),
    ],
)
def test_a_server_that_answers_wrongly_is_not_measured(answers, words):
    with pytest.raises(SystemExit, match=words):
        rounds.check(SUBJECT, servers(SUBJECT)["ours"], answers, 2)


def test_the_echo_may_answer_anything_of_the_right_length():
    rounds.check(SUBJECT, servers(SUBJECT)["echo"], [0.0, 0.0], 2)


@pytest.mark.parametrize("has_log", [True, False])
def test_this_server_logs_where_it_can(monkeypatch, has_log):
    monkeypatch.setattr(peers, "has_log", lambda: has_log)
    logged, plain = (peers.ours(SUBJECT, is_logging=is_logging).command(1, 2) for is_logging in (True, False))
    assert ("--prediction_log" in logged) == has_log
    assert "--prediction_log" not in plain


def test_the_price_of_a_log_that_is_not_there_is_not_measured(monkeypatch):
    monkeypatch.setattr(serving, "has_log", lambda: False)
    with pytest.raises(SystemExit, match="has no --prediction_log"):
        serving.with_and_without_log(SUBJECT)


@pytest.mark.parametrize("option", ["--only", "--cases"])
def test_an_unknown_name_is_refused_with_those_that_are_known(option, capsys):
    with pytest.raises(SystemExit):
        serving.parse([option, "nothing"])
    assert "nothing: known are" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not all(map(shutil.which, ("wrk", "h2load"))), reason="wrk or h2load is not installed")
def test_this_server_and_the_echo_are_measured_by_every_protocol(workplace, monkeypatch):
    # given a folder of its own with the example
    for name in ("confs", "data"):
        (workplace / name).symlink_to(ROOT / name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setitem(rounds.ENVIRONMENT, "PYTHONPATH", str(ROOT))
    # when both are loaded for a second
    served = serving.subject()
    chosen = serving.choose(served, ["ours", "echo"])
    found = serving.measure(served, chosen, ["v1-1-c16", "v2-1-c16", "grpc-1-c16"], rounds=1, seconds=1)
    # then there is a rate for each, and the server is light
    assert {load.rate > 0 for runs in found.values() for load in runs[0].measured.values()} == {True}
    assert found["ours"][0].measured.keys() == {"v1-1-c16", "v2-1-c16", "grpc-1-c16"}
    assert 50 < found["ours"][0].resident_mb < 400
