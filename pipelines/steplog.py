"""Condense the output of kfp's local runner: the start and end of each step, and the lines that the step prints."""

import io
import re
import time

from rich.console import Console
from typing_extensions import override

ANSI = re.compile(r"\x1b\[\d+m")
STEP_STARTS = re.compile(r"Executing task '(.+)'")
STEP_ENDS = re.compile(r"Task '(.+)' finished with status (\w+)")
INDENT = "    "  # prefix of each line that a step prints
RUNNER_PREFIX = "[KFP Executor"
INPUT_DUMP = "Got executor_input:"


class StepLog(io.TextIOBase):
    """Stream that replaces stdout of kfp's runner and prints the condensed log.

    The runner's dump of the input of each step, with its config, is left out: the compiled pipeline holds it.
    """

    def __init__(self, console: Console, steps: int) -> None:
        """Create the stream.

        Args:
            console: Console to print to.
            steps: Number of steps of the pipeline.
        """
        self.console = console
        self.steps = steps
        self.number = 0
        self.started_at = time.monotonic()
        self._incomplete_line = ""
        self._is_in_step = False
        self._is_in_dump = False

    @override
    def writable(self) -> bool:
        return True

    @override
    def write(self, text: str) -> int:
        """Buffer the text and process its complete lines."""
        *lines, self._incomplete_line = (self._incomplete_line + text).split("\n")
        for line in lines:
            self._handle_line(ANSI.sub("", line))
        return len(text)

    def _handle_line(self, line: str) -> None:
        if starts := STEP_STARTS.search(line):
            self._start_step(starts[1])
        elif ends := STEP_ENDS.search(line):
            self._end_step(ends[1], ends[2])
        elif self._is_in_step and line.startswith(INDENT):
            self._handle_step_line(line.removeprefix(INDENT))

    def _start_step(self, step: str) -> None:
        self.number += 1
        self.started_at = time.monotonic()
        self._is_in_step, self._is_in_dump = True, False
        self.console.print(f"[bold cyan]step {self.number} of {self.steps}[/] [bold]{step}[/]", highlight=False)

    def _end_step(self, step: str, status: str) -> None:
        self._is_in_step = False
        seconds = time.monotonic() - self.started_at
        color, outcome = ("green", "done") if status == "SUCCESS" else ("red", status.lower())
        self.console.print(f"  [{color}]{step} {outcome}[/] [dim]in {seconds:.1f} s[/]", highlight=False)

    def _handle_step_line(self, line: str) -> None:
        if self._is_in_dump:
            self._is_in_dump = line != "}"
        elif line.startswith(RUNNER_PREFIX):
            self._is_in_dump = INPUT_DUMP in line
        elif line.strip():
            self.console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
