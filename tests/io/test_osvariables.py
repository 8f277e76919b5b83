import pytest

from model_name.io.osvariables import env, job_overrides


def test_nothing_is_set_by_default(workplace):
    assert set(env().model_dump().values()) == {None}
    assert job_overrides() == {"mlflow": {}}


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_URI", "mlflow_tracking_uri"])
def test_variables_override_the_env_file_and_ignore_case(workplace, monkeypatch, name):
    (workplace / ".env").write_text("MLFLOW_TRACKING_URI=sqlite:///file.db\nMLFLOW_EXPERIMENT_NAME=mine\nOTHER=1\n")
    monkeypatch.setenv(name, "sqlite:///variable.db")
    assert job_overrides() == {"mlflow": {"tracking_uri": "sqlite:///variable.db", "experiment": "mine"}}


def test_an_empty_variable_counts_as_unset(workplace, monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MODEL_NAME_ALERTS_URL"):
        monkeypatch.setenv(name, "")
    assert job_overrides() == {"mlflow": {}}
    assert env().model_name_alerts_url is None


def test_secrets_are_not_in_the_repr(workplace, monkeypatch):
    monkeypatch.setenv("MODEL_NAME_ALERTS_URL", "https://host/token")
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "token")
    assert "token" not in repr(env()).replace("kf_pipelines_token", "")
    assert env().kf_pipelines_token.get_secret_value() == "token"


def test_the_environment_is_read_once(workplace, monkeypatch):
    before = env()
    monkeypatch.setenv("MODEL_NAME_ACTOR", "me")
    assert env() is before
    env.cache_clear()
    assert env().model_name_actor == "me"
