"""`medgen3d verify`: whether files and sets are ours, and as they were made."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from medgen3d import console
from medgen3d.cli.exit_codes import NOT_THIS_TIME

app = typer.Typer()


@app.command(epilog="Example: medgen3d verify pairs download/syn_00007.nii.gz --public-key ours.pem")
def verify(
    what: Annotated[
        list[str], typer.Argument(metavar="SET_OR_FILE...", help="Synthetic sets and single files of pairs.")
    ],
    public_key: Annotated[
        Path | None, typer.Option(help="PEM file: the Ed25519 key that manifests must be signed with.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything that was found, as a list.")] = False,
) -> None:
    """Say of sets and files whether medgen3d made them, by which pipeline, and whether they were changed since."""
    from medgen3d.artifacts.authenticity import verify

    findings = verify(what, public_key)
    if as_json:
        console.say(json.dumps([finding.model_dump(mode="json", exclude_none=True) for finding in findings], indent=1))
    else:
        counts = Counter(finding.state for finding in findings)
        rows = [
            (finding.file, finding.state, finding.note or (finding.mark.sentence if finding.mark else ""))
            for finding in findings
            if finding.state != "as made" or finding.note or finding.mark
        ]
        console.show_table("Verified", ("file", "state", "what is known"), rows)
        console.say(", ".join(f"{number} {state}" for state, number in sorted(counts.items())))
    if any(finding.state != "as made" for finding in findings):
        raise typer.Exit(NOT_THIS_TIME)
