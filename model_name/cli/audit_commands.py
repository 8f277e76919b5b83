"""Commands `model-name audit ...`. Heavy packages are imported inside the command that needs them."""

from typing import Annotated

import typer

from model_name.cli.options import AsJson

app = typer.Typer(name="audit", help="List the decisions of the gate and verify the audit trail.", no_args_is_help=True)

Trail = Annotated[str, typer.Option("--audit", help="Folder or URL of the audit trail.")]


@app.command("list")
def list_entries(trail: Trail = "audit", as_json: AsJson = False) -> None:
    """List promotions, refusals and forced promotions."""
    from model_name.io.audit import AuditTrail
    from model_name.io.console import print_json, print_rows

    entries = AuditTrail(trail).entries()
    if as_json:
        print_json([entry.model_dump() for entry in entries])
        return
    rows = [
        (entry.number, entry.time[:19], entry.actor, entry.event, entry.subject, str(entry.details.get("reason", "")))
        for entry in entries
    ]
    print_rows(f"{len(rows)} entries", ("#", "time (UTC)", "actor", "event", "subject", "reason"), rows)


@app.command("verify")
def verify_trail(trail: Trail = "audit", as_json: AsJson = False) -> None:
    """Verify every hash of the trail; the error names the first entry that was changed."""
    from model_name.io.audit import AuditTrail
    from model_name.io.console import print_result

    print_result("The audit trail is intact", {"entries": AuditTrail(trail).verify()}, as_json=as_json)
