"""`medgen3d demo`: the whole main job on phantoms."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from medgen3d import console
from medgen3d.cli.options import DryRun, Overrides, Verbose

app = typer.Typer()


@app.command(epilog="Example: medgen3d demo --out medgen3d-demo")
def demo(
    out: Annotated[Path, typer.Option(help="New folder, or that of a demo to go on with.")] = Path("medgen3d-demo"),
    override: Overrides = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Draw pairs with a built-in pipeline, then do the whole main job on phantoms, on this machine, within minutes."""
    console.begin_logging(verbose=verbose)
    from medgen3d.recipes.demo import STEPS, plan_demo, run_demo

    planned = plan_demo(out, override or [])
    if dry_run:
        console.say(f"Would do in {out}: {', '.join(STEPS)}")
        return
    run_demo(planned, console.notice, console.progress, verbose=verbose)
    mlflow = Path(sys.executable).with_name("mlflow")
    console.say(f"Pairs of the built-in pipeline: {planned.shown}, as a picture: {planned.picture}")
    console.say(f"Pairs:  {planned.pairs}")
    console.say(f"Report: {planned.report / 'report.html'}")
    console.say(f"MLflow: {mlflow} ui --backend-store-uri {planned.config.storage.mlflow_uri}")
