import pytest

from model_name.errors import DataError, DependencyError, PreemptedError, StorageError
from model_name.io import entrypoint, signals


def chained(cause, explicit, kind=ValueError):
    """What a library, or one of us, raises that caught something and tells of it, or not."""
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
        pytest.param(PreemptedError("told to stop"), 143, id="a preemption"),
        pytest.param(KeyboardInterrupt(), entrypoint.EXIT_INTERRUPTED, id="Ctrl-C"),
        pytest.param(KeyError("x"), 1, id="a defect"),
    ],
)
def test_a_signal_that_a_library_made_an_error_of_is_still_a_signal(capsys, cause, code, explicit):
    def fail():
        raise chained(cause, explicit)

    assert entrypoint.run_main(fail) == code
    assert ("Traceback" in capsys.readouterr().err) == (code == 1)


def test_a_signal_that_became_an_error_of_the_tree_is_still_a_signal(capsys):
    def fail():
        raise chained(PreemptedError("told to stop"), explicit=True, kind=StorageError)

    assert entrypoint.run_main(fail) == PreemptedError.exit_code
    assert "told to stop" in capsys.readouterr().err


def test_an_error_of_the_tree_is_told_with_its_own_code(capsys):
    def fail():
        raise DataError("row 3 is odd", hint="mend it")

    assert entrypoint.run_main(fail) == DataError.exit_code
    assert "row 3 is odd" in capsys.readouterr().err


def test_no_signal_is_behind_nothing():
    assert signals.find_signal_error(None) is None
    assert signals.find_signal_error(ValueError("plain")) is None


@pytest.mark.parametrize(
    ("module", "hint"),
    [("pyarrow.parquet", "model-name[training]"), ("kafka", "model-name[kafka]"), ("kserve", "model-name[serving]")],
)
def test_a_package_that_is_not_installed_is_named_with_what_installs_it(capsys, module, hint):
    code = entrypoint.report_exception(ModuleNotFoundError(f"No module named {module!r}", name=module))
    told = capsys.readouterr().err
    assert code == DependencyError.exit_code
    assert f"{module.partition('.')[0]} is not installed" in told
    assert hint in told


def test_a_module_of_ours_that_is_missing_is_a_defect(capsys):
    assert entrypoint.report_exception(ModuleNotFoundError("No module named 'model_name.x'", name="model_name.x")) == 1
    assert "ModuleNotFoundError" in capsys.readouterr().err
