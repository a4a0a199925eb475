"""Options that several commands share, and the configuration that they make."""

from pathlib import Path
from typing import Annotated, Any

import typer

ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file with any part of the configuration.")]
Presets = Annotated[list[str] | None, typer.Option("--preset", help="Shipped preset; may be repeated, later ones win.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="section.key=value; may be repeated.")]
Address = Annotated[
    str | None,
    typer.Option(envvar="RAY_ADDRESS", help="Ray cluster, such as 10.0.0.5:6379; by default one on this machine."),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also show what is logged, by Ray's workers as well.")]
BundleChoice = Annotated[str, typer.Option(help="Version number, alias or latest; of another data set: NAME@3.")]
PipelineReference = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="NAME, NAME@3 or NAME@champion.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


def configuration(path: Path | None, presets: list[str] | None, overrides: list[str] | None) -> Any:
    """The ExperimentConfig of a file, presets and settings."""
    from medgen3d.config.load import load_config

    return load_config(path, presets or [], overrides or [])
