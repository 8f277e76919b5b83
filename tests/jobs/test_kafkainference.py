from pathlib import Path
from typing import Any

import pytest

from model_name.errors import ConfigError
from model_name.jobs.kafkainference import KafkaInferenceJob
from model_name.settings import load_job

CONF = Path(__file__).parents[2] / "confs/flights/kafkainference.yaml"


def test_overrides_take_precedence_over_the_config() -> None:
    job: Any = load_job([str(CONF)], ["job.group=other", "job.session_seconds=30s"], {})
    assert isinstance(job, KafkaInferenceJob)
    assert (job.input, job.group, job.session_seconds, job.delivery) == ("flights", "other", 30.0, "exactly_once")


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        pytest.param("job.delivery=twice", "delivery", id="another delivery"),
        pytest.param("job.outptu=x", "did you mean output", id="a wrong key"),
        pytest.param("job.output=flights", "three topics", id="input and output are one"),
        pytest.param("job.input=a b", "input", id="an invalid topic"),
    ],
)
def test_an_invalid_setting_is_reported(pair: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_job([str(CONF)], [pair], {})
