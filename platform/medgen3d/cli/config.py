"""`medgen3d config`: configurations and presets."""

from typing import Annotated

import typer

from medgen3d import console
from medgen3d.cli.options import ConfigOptions, grouped

app = typer.Typer(
    name="config",
    no_args_is_help=True,
    help="Show configurations and presets.",
    epilog="Example: medgen3d config show --preset smoke",
)


@app.command(epilog="Example: medgen3d config show --preset workstation --preset thoracic_ct")
@grouped
def show(options: ConfigOptions) -> None:
    """Show the whole configuration that the given file, presets and settings make."""
    console.say(options.load().to_yaml().rstrip())


@app.command(epilog="Example: medgen3d config presets smoke")
def presets(
    name: Annotated[str | None, typer.Argument(help="Show this preset's YAML, with its comments.")] = None,
) -> None:
    """List the shipped presets."""
    from medgen3d.config.load import preset_names, preset_text

    if name is not None:
        console.say(preset_text(name).rstrip())
        return
    for each in preset_names():
        console.say(f"{each:<14}{preset_text(each).splitlines()[0].removeprefix('# ')}")
