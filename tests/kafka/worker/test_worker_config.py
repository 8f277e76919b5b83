"""What a worker may be told."""

from typing import Any

import pytest
from pydantic import ValidationError

from model_name.errors import ConfigError
from model_name.kafka.worker.config_files import read_settings
from model_name.kafka.worker.worker_config import WorkerSettings

LEAST = {
    "bundle": "build/bundle",
    "bootstrap_servers": "localhost:9092",
    "input": "rows",
    "output": "results",
    "dead_letter": "failed",
    "group": "scorers",
}


def test_six_words_are_enough_and_the_promise_is_exactly_once() -> None:
    settings = WorkerSettings.model_validate(LEAST)
    assert settings.is_exact
    assert (settings.limits.body_bytes, settings.limits.rows, settings.limits.text_length) == (2**20, 10_000, 10_000)


@pytest.mark.parametrize("missing", list(LEAST))
def test_none_of_them_can_be_left_out(missing: str) -> None:
    pairs = [f"job.{name}={value}" for name, value in LEAST.items() if name != missing]
    with pytest.raises(ConfigError, match=f"--{missing.replace('_', '-')}: missing"):
        read_settings(pairs)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"output": "rows"}, "are three topics", id="a topic twice"),
        pytest.param({"dead_letter": "results"}, "are three topics", id="another topic twice"),
        pytest.param({"input": "rows, more"}, "input", id="no name of a topic"),
        pytest.param({"input": ""}, "input", id="no topic"),
        pytest.param({"output": "x" * 250}, "output", id="too long a name"),
        pytest.param({"group": ""}, "group", id="no group"),
        pytest.param({"bootstrap_servers": ""}, "bootstrap_servers", id="no address"),
        pytest.param({"delivery": "at_most_once"}, "delivery", id="a promise that is none"),
        pytest.param({"max_poll_records": 0}, "max_poll_records", id="no records"),
        pytest.param({"session_seconds": 0}, "session_seconds", id="no time"),
        pytest.param({"log_sampling": 1.5}, "log_sampling", id="a share above one"),
        pytest.param({"http_port": 70_000}, "http_port", id="no port"),
        pytest.param({"max_poll_record": 5}, "did you mean max_poll_records", id="a key that is none"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        WorkerSettings.model_validate(LEAST | changes)


def test_a_wrong_pair_is_told_with_its_key() -> None:
    pairs = [f"job.{name}={value}" for name, value in LEAST.items()]
    with pytest.raises(ConfigError, match=r"job\.max_rows"):
        read_settings([*pairs, "job.max_rows=none"])


def test_durations_may_be_spelled() -> None:
    assert read_settings([f"job.{n}={v}" for n, v in (LEAST | {"stuck_seconds": "5m"}).items()]).stuck_seconds == 300
