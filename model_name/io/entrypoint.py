"""Start and end of every process: signal handlers, and the exit code of an error."""

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from model_name.errors import DependencyError, ModelNameError, StorageError
from model_name.io import signals

PACKAGE = __name__.partition(".")[0]
EXTRA_BY_PACKAGE = {"grpc": "serving", "kafka": "kafka", "kfp": "pipelines", "kserve": "serving", "ray": "tuning"}
"""Extra that installs a package; `training` installs all other packages."""
EXIT_REFUSED = 3  # the gate refused a version and recorded it
EXIT_INTERRUPTED = 130


def configure_process() -> None:
    """Install the signal handlers and make waiting OpenMP threads sleep. Every process calls this first.

    By default the threads of scikit-learn's trees spin while they wait for each other. If another process uses the
    same processors, or the CPU quota of the pod is exhausted, a fit of half a second then takes a minute.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signals.install_handlers()


def run_main(call: Callable[[], Any]) -> int:
    """Call a function, report its exceptions on stderr and return the exit code. This is the outermost handler."""
    try:
        call()
    except SystemExit as exit_:  # Typer raises it after an invalid option, and after Ctrl-C
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        return report_interrupt() if code == EXIT_INTERRUPTED else code
    except KeyboardInterrupt:
        return report_interrupt()
    except Exception as error:  # noqa: BLE001  outermost handler: every error is reported and none exits with 0
        return report_exception(error)
    finally:
        signals.disarm()
    return 0


def report_exception(error: Exception) -> int:
    """Report an exception, with its traceback if it is a defect, and return its exit code."""
    # A library, or an `except OSError`, may have wrapped the exception that a signal raised.
    cause = signals.find_signal_error(error) or error
    if isinstance(cause, ModelNameError):
        return report_error(cause)
    if isinstance(cause, KeyboardInterrupt):
        return report_interrupt()
    if isinstance(error, OSError):
        path = error.filename or "the disk"
        return report_error(StorageError(f"{path}: {error.strerror or error}", hint="check space and permissions"))
    if isinstance(error, ModuleNotFoundError) and (package := (error.name or "").partition(".")[0]) not in (
        "",
        PACKAGE,
    ):
        hint = f"pip install 'model-name[{EXTRA_BY_PACKAGE.get(package, 'training')}]'"
        return report_error(DependencyError(f"{package} is not installed", hint=hint))
    traceback.print_exception(error)
    return ModelNameError.exit_code


def report_interrupt() -> int:
    """Report Ctrl-C and return its exit code."""
    sys.stderr.write("interrupted\n")
    return EXIT_INTERRUPTED


def report_error(error: ModelNameError) -> int:
    """Report an error of this project and return its exit code."""
    from model_name.io.console import print_error

    print_error(error)
    return error.exit_code
