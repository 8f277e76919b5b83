"""How a process of ours begins and ends: signals, and what becomes an exit code."""

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from model_name.errors import DependencyError, ModelNameError, StorageError
from model_name.io import signals

PACKAGE = __name__.partition(".")[0]
EXTRA_BY_PACKAGE = {"grpc": "serving", "kafka": "kafka", "kfp": "pipelines", "kserve": "serving", "ray": "tuning"}
"""What installs a package, where it is not the extra `training`."""
EXIT_REFUSED = 3  # the gate said no, which was recorded
EXIT_INTERRUPTED = 130


def configure_process() -> None:
    """What every process of ours does first: signals end the work cleanly, and waiting threads do not spin.

    The threads of scikit-learn's trees spin while they wait for each other. Where another process wants the same
    processors, or a pod's quota is used up, a fit of half a second then takes a minute.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signals.install_handlers()


def run_main(call: Callable[[], Any]) -> int:
    """Call something and turn what it raises into an exit code and words for people: the outermost loop."""
    try:
        call()
    except SystemExit as exit_:  # what Typer ends with, after a wrong option and after Ctrl-C too
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        return report_interrupt() if code == EXIT_INTERRUPTED else code
    except KeyboardInterrupt:
        return report_interrupt()
    except Exception as error:  # noqa: BLE001  the outermost loop: whatever it is, it is told and never exits with 0
        return report_exception(error)
    finally:
        signals.disarm()
    return 0


def report_exception(error: Exception) -> int:
    """Say what went wrong, a defect with its trace, and return the exit code that goes with it."""
    found = signals.find_signal_error(error) or error  # which an `except OSError` may have turned into an error of ours
    if isinstance(found, ModelNameError):
        return report_error(found)
    if isinstance(found, KeyboardInterrupt):
        return report_interrupt()
    if isinstance(error, OSError):
        place = error.filename or "the disk"
        return report_error(StorageError(f"{place}: {error.strerror or error}", hint="check space and permissions"))
    if isinstance(error, ModuleNotFoundError) and (package := (error.name or "").partition(".")[0]) not in (
        "",
        PACKAGE,
    ):
        hint = f"pip install 'model-name[{EXTRA_BY_PACKAGE.get(package, 'training')}]'"
        return report_error(DependencyError(f"{package} is not installed", hint=hint))
    traceback.print_exception(error)
    return ModelNameError.exit_code


def report_interrupt() -> int:
    """Say that it was Ctrl-C and return the exit code that goes with it."""
    sys.stderr.write("interrupted\n")
    return EXIT_INTERRUPTED


def report_error(error: ModelNameError) -> int:
    """Say what went wrong and return the exit code that goes with it."""
    from model_name.io.console import print_error

    print_error(error)
    return error.exit_code
