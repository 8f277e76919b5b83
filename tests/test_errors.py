import inspect
import pickle

import pytest

from model_name import errors
from model_name.errors import ModelNameError

LEAVES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", LEAVES)
def test_error_has_a_message_and_a_hint(kind):
    err = kind("table.csv: is empty", hint="bring rows")
    assert (err.message, err.hint) == ("table.csv: is empty", "bring rows")
    assert str(err) == "table.csv: is empty\n  next: bring rows"
    assert str(kind("table.csv: is empty")) == "table.csv: is empty"


@pytest.mark.parametrize("kind", LEAVES)
def test_error_can_be_pickled(kind):
    again = pickle.loads(pickle.dumps(kind("what", hint="next")))
    assert (type(again), again.message, again.hint) == (kind, "what", "next")


@pytest.mark.parametrize(
    ("name", "builtin", "exit_code", "http_status"),
    [
        ("ConfigError", ValueError, 2, 400),
        ("DataError", ValueError, 4, 400),
        ("NotFoundError", LookupError, 4, 404),
        ("DependencyError", ConnectionError, 5, 503),
        ("StorageError", OSError, 5, 503),
        ("NotFittedError", RuntimeError, 1, 503),
        ("ExportError", ArithmeticError, 1, 500),
        ("ExplanationError", ArithmeticError, 1, 500),
        ("AuditError", RuntimeError, 1, 500),
        ("PreemptedError", InterruptedError, 143, 503),
    ],
)
def test_error_has_a_builtin_base_an_exit_code_and_a_status(name, builtin, exit_code, http_status):
    kind = getattr(errors, name)
    assert issubclass(kind, ModelNameError)
    assert issubclass(kind, builtin)
    assert (kind.exit_code, kind.http_status) == (exit_code, http_status)
