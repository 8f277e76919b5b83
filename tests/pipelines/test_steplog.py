"""Condensed output of the local runner."""

import io

from rich.console import Console

from pipelines.steplog import StepLog

RAW = """12:00:00.000 - INFO - Running pipeline: \x1b[95m'p'\x1b[0m
--------------------------------------------------------------------------------
12:00:00.100 - INFO - Executing task \x1b[96m'training'\x1b[0m
12:00:00.100 - INFO - Streamed logs:

    [KFP Executor 2026-01-01 INFO]: Looking for component
    [KFP Executor 2026-01-01 INFO]: Got executor_input:
    {
        "inputs": {"secret": "not shown"}
    }
    12:00:01 INFO    fitted [bold] on 7 rows

12:00:02.000 - INFO - Task \x1b[96m'training'\x1b[0m finished with status \x1b[92mSUCCESS\x1b[0m
12:00:02.000 - INFO - Task \x1b[96m'training'\x1b[0m outputs:
    Output: '1'
"""


def step_log(text, chunk):
    out = io.StringIO()
    log = StepLog(Console(file=out, width=200), steps=3)
    for start in range(0, len(text), chunk):
        log.write(text[start : start + chunk])
    return out.getvalue()


def test_only_steps_and_their_lines_are_printed():
    result = step_log(RAW, len(RAW))
    assert [line.split(" in ")[0] for line in result.splitlines()] == [
        "step 1 of 3 training",
        "  12:00:01 INFO    fitted [bold] on 7 rows",
        "  training done",
    ]


def test_chunked_writes_give_the_same_lines():
    assert step_log(RAW, 3).split(" in ")[0] == step_log(RAW, len(RAW)).split(" in ")[0]
