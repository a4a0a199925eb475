"""The command line: one module per command, each of which parses, calls and shows. The work is done elsewhere.

Whatever is heavy is imported inside the functions, so that `--help` answers at once.
"""

from typing import Annotated

import typer

from medgen3d import __version__, console
from medgen3d.cli import (
    config,
    demo,
    evaluate,
    ingest,
    phantom,
    pipeline,
    pipelines,
    request,
    serve,
    synthesize,
    tokens,
    train,
    usefulness,
    verify,
)
from medgen3d.cli.exit_codes import ExitCodes

COMMANDS = (
    *(demo, phantom, ingest, train, pipeline, pipelines, synthesize, verify, evaluate, usefulness),
    *(serve, tokens, request, config),
)
"""In the order of `medgen3d --help`: the main job, the service, settings."""

app = typer.Typer(
    cls=ExitCodes,
    name="medgen3d",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: medgen3d demo",
)
for command in COMMANDS:
    app.add_typer(command.app)


def main() -> None:
    """What the installed command runs."""
    app()


def _version(wanted: bool) -> None:
    if wanted:
        console.say(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Synthetic 3D medical images with their label masks: train the MedGen3D method and run it, on Ray and MLflow."""
