import pytest

from model_name.errors import DataError, DependencyError, PreemptedError, StorageError
from model_name.io import entrypoint, signals


def chained(cause, explicit, kind=ValueError):
    """Return an error that was raised while handling another one, with or without `from`."""
    try:
        try:
            raise cause
        except BaseException as err:
            if explicit:
                raise kind("not a valid format") from err
            raise kind("not a valid format")  # noqa: B904
    except kind as err:
        return err


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize(
    ("cause", "code"),
    [
        pytest.param(PreemptedError("told to stop"), 143, id="SIGTERM"),
        pytest.param(KeyboardInterrupt(), entrypoint.EXIT_INTERRUPTED, id="Ctrl-C"),
        pytest.param(KeyError("x"), 1, id="a defect"),
    ],
)
def test_the_exit_code_of_a_signal_survives_wrapping_by_a_library(capsys, cause, code, explicit):
    def fail():
        raise chained(cause, explicit)

    assert entrypoint.run_main(fail) == code
    assert ("Traceback" in capsys.readouterr().err) == (code == 1)


def test_the_exit_code_of_a_signal_survives_wrapping_by_a_project_error(capsys):
    def fail():
        raise chained(PreemptedError("told to stop"), explicit=True, kind=StorageError)

    assert entrypoint.run_main(fail) == PreemptedError.exit_code
    assert "told to stop" in capsys.readouterr().err


def test_a_project_error_is_printed_and_gives_its_exit_code(capsys):
    def fail():
        raise DataError("row 3 is odd", hint="mend it")

    assert entrypoint.run_main(fail) == DataError.exit_code
    assert "row 3 is odd" in capsys.readouterr().err


def test_errors_without_a_signal_have_no_signal_error():
    assert signals.find_signal_error(None) is None
    assert signals.find_signal_error(ValueError("plain")) is None


@pytest.mark.parametrize(
    ("module", "hint"),
    [("pyarrow.parquet", "model-name[training]"), ("kafka", "model-name[kafka]"), ("kserve", "model-name[serving]")],
)
def test_a_missing_package_is_named_with_its_extra(capsys, module, hint):
    code = entrypoint.report_exception(ModuleNotFoundError(f"No module named {module!r}", name=module))
    output = capsys.readouterr().err
    assert code == DependencyError.exit_code
    assert f"{module.partition('.')[0]} is not installed" in output
    assert hint in output


def test_a_missing_module_of_this_package_is_a_defect(capsys):
    assert entrypoint.report_exception(ModuleNotFoundError("No module named 'model_name.x'", name="model_name.x")) == 1
    assert "ModuleNotFoundError" in capsys.readouterr().err
