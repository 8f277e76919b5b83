"""Settings of a worker."""

from typing import Any

import pytest
from pydantic import ValidationError

from model_name.errors import ConfigError
from model_name.kafka.worker.worker_settings import WorkerSettings, load_settings

REQUIRED = {
    "bundle": "build/bundle",
    "bootstrap_servers": "localhost:9092",
    "input": "rows",
    "output": "results",
    "dead_letter": "failed",
    "group": "scorers",
}


def test_six_settings_are_required_and_delivery_is_exactly_once() -> None:
    settings = WorkerSettings.model_validate(REQUIRED)
    assert settings.is_exact
    assert (settings.limits.body_bytes, settings.limits.rows, settings.limits.text_length) == (2**20, 10_000, 10_000)


@pytest.mark.parametrize("missing", list(REQUIRED))
def test_a_missing_setting_is_reported_by_its_option(missing: str) -> None:
    pairs = [f"job.{name}={value}" for name, value in REQUIRED.items() if name != missing]
    with pytest.raises(ConfigError, match=f"--{missing.replace('_', '-')}: missing"):
        load_settings(pairs)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"output": "rows"}, "are three topics", id="output equals input"),
        pytest.param({"dead_letter": "results"}, "are three topics", id="dead letters equal results"),
        pytest.param({"input": "rows, more"}, "input", id="an invalid topic"),
        pytest.param({"input": ""}, "input", id="no topic"),
        pytest.param({"output": "x" * 250}, "output", id="a long topic"),
        pytest.param({"group": ""}, "group", id="no group"),
        pytest.param({"bootstrap_servers": ""}, "bootstrap_servers", id="no address"),
        pytest.param({"delivery": "at_most_once"}, "delivery", id="an unknown delivery"),
        pytest.param({"max_poll_records": 0}, "max_poll_records", id="no records"),
        pytest.param({"session_seconds": 0}, "session_seconds", id="no time"),
        pytest.param({"log_sampling": 1.5}, "log_sampling", id="a share above one"),
        pytest.param({"slot": "blue\n"}, "is not an identifier", id="a slot that is no header value"),
        pytest.param({"http_port": 70_000}, "http_port", id="no port"),
        pytest.param({"max_poll_record": 5}, "did you mean max_poll_records", id="an unknown key"),
    ],
)
def test_invalid_settings_are_rejected(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        WorkerSettings.model_validate(REQUIRED | changes)


def test_a_wrong_pair_is_reported_with_its_key() -> None:
    pairs = [f"job.{name}={value}" for name, value in REQUIRED.items()]
    with pytest.raises(ConfigError, match=r"job\.max_rows"):
        load_settings([*pairs, "job.max_rows=none"])


def test_durations_may_have_units() -> None:
    assert load_settings([f"job.{n}={v}" for n, v in (REQUIRED | {"stuck_seconds": "5m"}).items()]).stuck_seconds == 300
