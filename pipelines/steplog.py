"""What kfp's local runner prints, for people: a line when a step begins and ends, and what the step itself says."""

import io
import re
import time

from rich.console import Console

ANSI = re.compile(r"\x1b\[\d+m")
BEGINS = re.compile(r"Executing task '(.+)'")
ENDS = re.compile(r"Task '(.+)' finished with status (\w+)")
INDENT = "    "  # what the runner puts before each line of a step
OWN = "[KFP Executor"
DUMP = "Got executor_input:"


class StepLog(io.TextIOBase):
    """A stream that takes what the runner prints to stdout.

    The runner repeats each step's input and output, config included; that is in the compiled pipeline already.
    """

    def __init__(self, console: Console, steps: int) -> None:
        """Tell it to a console; `steps` is how many there will be."""
        self.console = console
        self.steps = steps
        self.number = 0
        self.began = time.monotonic()
        self._rest = ""
        self._speaks = False
        self._dumps = False

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Take some text; whole lines are told at once."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(ANSI.sub("", line))
        return len(text)

    def _line(self, line: str) -> None:
        if begins := BEGINS.search(line):
            self._begin(begins[1])
        elif ends := ENDS.search(line):
            self._end(ends[1], ends[2])
        elif self._speaks and line.startswith(INDENT):
            self._said(line.removeprefix(INDENT))

    def _begin(self, step: str) -> None:
        self.number += 1
        self.began = time.monotonic()
        self._speaks, self._dumps = True, False
        self.console.print(f"[bold cyan]step {self.number} of {self.steps}[/] [bold]{step}[/]", highlight=False)

    def _end(self, step: str, status: str) -> None:
        self._speaks = False
        seconds = time.monotonic() - self.began
        colour, word = ("green", "done") if status == "SUCCESS" else ("red", status.lower())
        self.console.print(f"  [{colour}]{step} {word}[/] [dim]in {seconds:.1f} s[/]", highlight=False)

    def _said(self, line: str) -> None:
        if self._dumps:
            self._dumps = line != "}"
        elif line.startswith(OWN):
            self._dumps = DUMP in line
        elif line.strip():
            self.console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
