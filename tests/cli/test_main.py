"""Command line: output, exit codes and signals."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from model_name.cli.main import main
from tests.support import projects, tables

SHARED = "job.mlflow.tracking_uri"


@pytest.fixture
def confs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return projects.make_project(tmp_path)


def edit(confs, name, change):
    """Change the text of a config file."""
    path = confs / f"{name}.yaml"
    path.write_text(change(path.read_text()), encoding="utf-8")


def damage(confs, change):
    """Change the table."""
    change(tables.order_table()).to_parquet(confs.parent / "orders.parquet", index=False)


def with_duplicate_row(frame):
    return frame._append(frame.iloc[0], ignore_index=True)


WRONG_CONFIGS = [
    pytest.param(
        ["--set", "job.modle={}"], 2, "modle is not a key of TrainingJob; did you mean model?", id="misspelt key"
    ),
    pytest.param(["--set", "job.model.max_itr=3"], 2, "max_itr is not a key of BoostedTrees", id="misspelt parameter"),
    pytest.param(["--set", "job.seed=abc"], 2, "job.seed: Input should be a valid integer, not 'abc'", id="wrong type"),
    pytest.param(["--set", "job.model.max_iter=-1"], 2, "max_iter", id="parameter out of range"),
    pytest.param(["--set", "job.model.KIND=BoostedTree"], 2, "did you mean BoostedTrees?", id="unknown kind of model"),
    pytest.param(["--set", "job.KIND=Training"], 2, "did you mean TrainingJob?", id="unknown kind of job"),
    pytest.param(
        ["--set", "job.metrics=[{name: roc_auc}]"], 2, "does not fit a regression", id="metric of another task"
    ),
    pytest.param(["--set", "job.metrics=[{name: rsme}]"], 2, "rsme is not a metric", id="unknown metric"),
    pytest.param(["--set", "job.schema=nowhere.yaml"], 2, "nowhere.yaml: cannot be read", id="missing schema"),
    pytest.param(
        ["--set", "job.table.path=nowhere.parquet"], 4, "nowhere.parquet: there is no such file", id="missing table"
    ),
    pytest.param(
        ["--set", "job.plugins=[no_such_module]"], 2, "no_such_module cannot be imported", id="missing plugin"
    ),
    pytest.param(
        ["--set", "job.mlflow.tracking_uri=http://127.0.0.1:9"], 5, "MLflow at http://127.0.0.1:9", id="no MLflow"
    ),
    pytest.param(["--set", "nonsense"], 2, "is not of the form a.b=value", id="--set without a value"),
]


@pytest.mark.parametrize(("flags", "code", "message"), WRONG_CONFIGS)
def test_an_invalid_config_is_refused_with_its_reason(confs, capfd, flags, code, message):
    assert main(["run", str(confs / "training.yaml"), *flags]) == code
    assert message in capfd.readouterr().err


def test_a_wrong_key_in_a_file_names_file_and_path(confs, capfd):
    edit(confs, "training", lambda text: text.replace("max_iter", "max_itre"))
    assert main(["run", str(confs / "training.yaml")]) == 2
    message = capfd.readouterr().err
    assert f"{confs}/training.yaml: job.model" in message
    assert "did you mean max_iter?" in message


@pytest.mark.parametrize(
    ("flags", "variables"),
    [
        pytest.param(["--set", "job.seed=abc"], {}, id="a value of --set"),
        pytest.param(["--set", "job.seeed=1"], {}, id="a key of --set"),
        pytest.param([], {"MODEL_NAME__JOB__SEEED": "7"}, id="a key of the environment"),
    ],
)
def test_invalid_overrides_are_not_attributed_to_a_file(confs, capfd, monkeypatch, flags, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["run", str(confs / "training.yaml"), *flags]) == 2
    assert "error: --set or the environment: job" in capfd.readouterr().err


def test_an_invalid_schema_names_its_file(confs, capfd):
    edit(confs, "schema", lambda text: text.replace("nullable", "nulable"))
    assert main(["run", str(confs / "training.yaml")]) == 2
    message = capfd.readouterr().err
    assert f"{confs}/schema.yaml: columns.size: nulable is not a key of Column; did you mean nullable?" in message


WRONG_TABLES = [
    pytest.param(lambda table: table.iloc[:0], "the table is empty", id="no rows"),
    pytest.param(lambda table: table.drop(columns="amount"), "amount: the target is not a column", id="no target"),
    pytest.param(lambda table: table.assign(amount=1.0), "the target amount is constant", id="constant target"),
    pytest.param(lambda table: table.drop(columns="region"), "region: column is missing", id="column missing"),
    pytest.param(lambda table: table.assign(more=1), "more: is not a column of the schema", id="column extra"),
    pytest.param(lambda table: table.assign(size="warm"), "size, row 0: not a number", id="text for a number"),
    pytest.param(lambda table: table.assign(size=900.0), "900.0 is above 100.0", id="above the bound"),
    pytest.param(lambda table: table.assign(size=np.inf), "inf is not finite", id="infinite"),
    pytest.param(
        lambda table: table.assign(region=None), "region, row 0: is missing", id="missing in a required column"
    ),
    pytest.param(with_duplicate_row, "have the key of an earlier row, the first is code='r00000'", id="duplicate key"),
    pytest.param(lambda table: table.head(20), "holds a single day (2024-01-01)", id="a single day"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_TABLES)
def test_an_invalid_table_is_refused_with_its_reason(confs, capfd, change, message):
    # Given a table with a fault
    damage(confs, change)
    # When it is prepared
    code = main(["run", str(confs / "preparation.yaml")])
    # Then the exit code is that of a data error, the message names the fault, and nothing was written
    assert code == 4
    assert message in capfd.readouterr().err
    assert not (confs.parent / "build").exists()


def test_a_missing_config_is_reported(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "nowhere.yaml"]) == 2
    assert "nowhere.yaml: cannot be read" in capfd.readouterr().err


def test_run_prints_one_json_document(confs, capfd):
    assert main(["run", str(confs / "preparation.yaml"), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["kept"] == 600


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """Create a project whose registry holds one champion."""
    folder = tmp_path_factory.mktemp("registered")
    confs = projects.make_project(folder)
    for step in ("training", "evaluations", "promotion"):
        assert main(["run", str(confs / f"{step}.yaml"), "--json"]) == 0
    return folder


def store(folder):
    return ["--mlflow", f"sqlite:///{folder}/mlflow.db"]


def test_models_list_and_show_print_the_version(registered, capfd):
    assert main(["models", "list", "--json", *store(registered)]) == 0
    (version,) = json.loads(capfd.readouterr().out)
    assert (version["semver"], version["aliases"]) == ("1.0.0", ["challenger", "champion"])
    for ref in ("champion", "1", "1.0.0", "latest"):
        assert main(["models", "show", ref, "--json", *store(registered)]) == 0
        assert json.loads(capfd.readouterr().out)["gate"] == "passed"


def test_models_diff_of_a_version_with_itself_has_no_changes(registered, capfd):
    # Given a version that was evaluated and not explained
    page = registered / "diff.html"
    # When it is compared with itself
    assert main(["models", "diff", "1", "champion", "--out", str(page), "--json", *store(registered)]) == 0
    # Then nothing differs, the missing explanation is reported, and the page is written
    result = json.loads(capfd.readouterr().out)
    assert (result["contract"], result["parameters"], result["same_rows"]) == ([], [], True)
    assert [metric["better"] for metric in result["metrics"]] == ["", ""]
    assert result["missing"] == ["1.0.0 was not explained"] * 2
    assert result["sentence"] in page.read_text(encoding="utf-8")


def test_models_diff_prints_sentences(registered, capfd):
    assert main(["models", "diff", "1", "champion", *store(registered)]) == 0
    output = capfd.readouterr().out
    assert "Both were measured on the same 120 held-out rows." in output
    assert "1.0.0 against 1.0.0: the same contract; both BoostedTrees; rmse equal; passed, became champion." in output


def test_models_diff_with_an_unknown_version_is_not_found(registered, capfd):
    assert main(["models", "diff", "1", "9.9.9", *store(registered)]) == 4
    assert "no version is called '9.9.9'" in capfd.readouterr().err


def test_an_unknown_reference_is_not_found(registered, capfd):
    assert main(["models", "show", "9.9.9", *store(registered)]) == 4
    assert "no version is called '9.9.9'" in capfd.readouterr().err


def test_an_empty_registry_is_reported(tmp_path, capfd):
    assert main(["models", "list", *store(tmp_path)]) == 4
    assert "is empty" in capfd.readouterr().err


def test_promote_is_audited_and_a_refusal_exits_with_3(registered, capfd):
    confs = str(registered / "confs")
    command = ["promote", "1", "--actor", "ann", "--reason", "a check", "--confs", confs, "--json"]
    assert main(command) == 0
    # Given a version that misses a threshold
    strict = ["--set", "job.metrics=[{name: rmse, threshold: 0.0001}]"]
    assert main(["run", f"{confs}/evaluations.yaml", "--json", *strict]) == 0
    assert main(command) == 3
    trail = ["--audit", str(registered / "audit")]
    capfd.readouterr()
    assert main(["audit", "list", "--json", *trail]) == 0
    assert [(entry["actor"], entry["event"]) for entry in json.loads(capfd.readouterr().out)][1:] == [
        ("ann", "promoted"),
        ("ann", "refused"),
    ]
    assert main(["audit", "verify", *trail]) == 0


def test_a_tampered_trail_is_reported(registered, tmp_path, capfd):
    import shutil

    shutil.copytree(registered / "audit", tmp_path / "audit")
    entry = tmp_path / "audit" / "00000001.json"
    entry.write_text(entry.read_text().replace("promoted", "forced"))
    assert main(["audit", "verify", "--audit", str(tmp_path / "audit")]) == 1
    assert "entry 1" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["", "TrainingJob", "BoostedTrees", "TableSchema"])
def test_schema_prints_a_json_schema(kind, capfd):
    assert main(["schema", kind] if kind else ["schema"]) == 0
    assert "properties" in json.loads(capfd.readouterr().out)


def test_schema_of_an_unknown_kind_names_the_nearest(capfd):
    assert main(["schema", "TrainigJob"]) == 2
    assert "did you mean TrainingJob?" in capfd.readouterr().err


def test_serve_of_a_missing_bundle_is_reported(capfd):
    assert main(["serve", "--bundle", "nowhere"]) == 4
    assert "nowhere: there is no such bundle" in capfd.readouterr().err


def test_init_writes_a_config_that_runs(tmp_path, monkeypatch, capfd):
    # Given a table without a config
    monkeypatch.chdir(tmp_path)
    tables.order_table().to_csv("orders.csv", index=False)
    # When `init` writes a config and the table is prepared with it
    assert main(["init", "orders.csv", "--target", "amount", "--out", "confs/my", "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    # Then the config runs unchanged
    assert result["next"] == "python -m pipelines run training --confs confs/my"
    assert main(["run", "confs/my/project.yaml", "--set", "job.KIND=PreparationJob"]) == 0


def test_init_of_a_time_series_proposes_lag_columns_that_jobs_compute(tmp_path, monkeypatch, capfd):
    # Given daily sales of two shops with a weekly season
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    day = pd.date_range("2022-01-03", periods=300).repeat(2)
    sales = 10 + 5 * (day.weekday > 4) + rng.normal(0, 1, 600)
    pd.DataFrame({"shop": ["a", "b"] * 300, "day": day, "sales": sales}).to_parquet("shops.parquet")
    # When `init` writes a config and the table is prepared with it
    flags = ["--target", "sales", "--country", "US", "--out", "confs/my", "--json"]
    assert main(["init", "shops.parquet", *flags]) == 0
    result = json.loads(capfd.readouterr().out)
    assert main(["run", "confs/my/preparation.yaml", "--json"]) == 0
    prepared = pd.read_parquet(json.loads(capfd.readouterr().out)["table"])
    # Then the table has the lag columns, and the config defines how they are computed
    schema = (tmp_path / "confs/my/schema.yaml").read_text()
    assert "  day: {kind: datetime, encode: {holidays: US}}" in schema
    line = "  sales_7d: {kind: numeric, nullable: true, min: 0, history: {of: sales, by: [shop], lag: 7d}}"
    assert line in schema.splitlines()
    np.testing.assert_array_equal(prepared["sales_7d"], prepared.groupby("shop")["sales"].shift(7))
    # And the config of inference states that it needs earlier rows
    assert any("EVERY REQUEST MUST BRING sales_7d" in finding for finding in result["findings"])
    assert "sales_7d" in (tmp_path / "confs/my/inference.yaml").read_text()


def test_init_with_an_unknown_country_is_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    tables.order_table().to_parquet("orders.parquet")
    assert main(["init", "orders.parquet", "--target", "amount", "--country", "XX"]) == 2
    assert "--country: XX is not a country" in capfd.readouterr().err
    assert not (tmp_path / "confs").exists()


def test_init_with_an_unknown_target_names_the_nearest(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    tables.order_table().to_parquet("orders.parquet")
    assert main(["init", "orders.parquet", "--target", "amont"]) == 4
    assert "amount" in capfd.readouterr().err
    assert not (tmp_path / "confs").exists()


@pytest.mark.parametrize("name", ["--help", "--version"])
def test_help_imports_nothing_heavy(name):
    probe = (
        "import sys; from model_name.cli.main import main; code = main([sys.argv[1]]);"
        "heavy = {'pandas', 'mlflow', 'torch', 'sklearn', 'kfp', 'kserve', 'pyarrow', 'omegaconf'} & set(sys.modules);"
        "sys.exit(code or (f'imported {heavy}' if heavy else 0))"
    )
    result = subprocess.run([sys.executable, "-c", probe, name], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.fixture
def start():
    """Return `start(confs, *flags)`: starts a training process, which is killed if the test leaves it running."""
    processes = []

    def start_training(confs, *flags):
        command = [sys.executable, "-m", "model_name", "run", str(confs / "training.yaml"), *flags]
        env = {**os.environ, "PYTHONUNBUFFERED": "1"}
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=confs.parent, env=env))
        return processes[-1]

    yield start_training
    for process in processes:
        process.kill()
        process.wait()


def read_until(process, message, seconds=120):
    """Read the log up to a line, so that the signal arrives during the work."""
    until = time.monotonic() + seconds
    for line in process.stderr:
        if message in line:
            return
        assert time.monotonic() < until
    raise AssertionError(f"the process ended before it logged {message!r}")


LONG = ["--set", "job.model={KIND: BoostedTrees, max_iter: 1000000, max_leaf_nodes: 3}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        pytest.param(signal.SIGINT, 130, "interrupted", id="Ctrl-C"),
        pytest.param(signal.SIGTERM, 143, "run the same command again", id="SIGTERM"),
    ],
)
def test_a_signal_ends_training_with_its_exit_code_and_no_version(start, tmp_path, number, code, message):
    # Given a training that takes minutes
    confs = projects.make_project(tmp_path)
    process = start(confs, *LONG)
    read_until(process, "INFO    training BoostedTrees")
    time.sleep(1)
    # When the signal arrives
    process.send_signal(number)
    _, rest = process.communicate(timeout=60)
    # Then the exit code and the hint are those of the signal, and its run is closed
    assert (process.returncode, message in rest) == (code, True), rest
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("orders")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status in {"FAILED", "KILLED"}


@pytest.mark.slow
def test_a_preempted_network_resumes_from_its_checkpoint(start, tmp_path):
    # Given a network that is stopped after some epochs
    confs = projects.make_project(tmp_path)
    network = {"KIND": "TabularNetwork", "max_epochs": 100_000, "patience": 100_000}
    projects.write_yaml(confs / "training.yaml", {"job": {"KIND": "TrainingJob", "model": network}})
    process = start(confs)
    read_until(process, "training TabularNetwork: ")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    kept = list((tmp_path / "build" / "checkpoints").rglob("*.ckpt"))
    assert kept
    # When the same command runs again
    again = start(confs)
    # Then it logs that it resumes
    read_until(again, "resumed from")
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=60)
