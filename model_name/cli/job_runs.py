"""What commands that run a job share."""

from typing import TYPE_CHECKING

import typer

from model_name.io.entrypoint import EXIT_REFUSED

if TYPE_CHECKING:
    from model_name.jobs.base import Job


def run_job(job: "Job", *, as_json: bool) -> None:
    """Run a job with its services and print its result; exits with 3 where the gate refused."""
    from model_name.io.console import print_result

    with job:
        result = job.run()
    found = result.model_dump(mode="json", exclude=set() if as_json else set(result.DETAILS))
    print_result(f"{job.KIND} of {job.name}", found, as_json=as_json)
    if not result.accepted:
        raise typer.Exit(EXIT_REFUSED)
