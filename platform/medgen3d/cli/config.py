"""`medgen3d config`: configurations and presets."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from medgen3d import console
from medgen3d.cli.options import ConfigOptions, grouped
from medgen3d.core.errors import ConfigError

if TYPE_CHECKING:
    from medgen3d.config.experiment import ExperimentConfig

app = typer.Typer(
    name="config",
    no_args_is_help=True,
    help="Show configurations and presets.",
    epilog="Example: medgen3d config show --preset smoke",
)


Size = Annotated[
    str, typer.Option(help="D x H x W of the case that the costs are for [voxels]; larger cases cost more.")
]
Labels = Annotated[int, typer.Option(min=2, help="Labels that the costs are for, background included.")]
Speed = Annotated[
    float,
    typer.Option(
        min=0.001,
        help="TFLOP per second that a worker's device keeps up. The default is a tenth of what an H100 promises in "
        "bfloat16: a guess, for want of a measurement.",
    ),
]
Costs = Annotated[bool, typer.Option(help="Count what it costs; takes some seconds.")]


@app.command(epilog="Example: medgen3d config show --preset cluster --preset thoracic_ct")
@grouped
def show(
    options: ConfigOptions, costs: Costs = True, size: Size = "128x256x256", labels: Labels = 7, tflops: Speed = 100.0
) -> None:
    """Show the configuration that the given file, presets and settings make, and what it costs, as YAML and comments.

    Operations and memory are counted by running the networks without contents; no GPU is needed.
    """
    config = options.load()
    voxels = _sides(size)
    console.say(config.to_yaml().rstrip())
    if costs:
        console.notice("Counting what it costs; --no-costs leaves that out.")
        console.say("\n".join(f"# {line}".rstrip() for line in _costs(config, voxels, labels, tflops)))


def _sides(text: str) -> tuple[int, int, int]:
    sides = [int(side) if side.strip().isdecimal() else 0 for side in text.lower().split("x")]
    if len(sides) != 3 or not all(sides):
        raise ConfigError(f"--size must be three whole numbers D x H x W above 0, such as 128x256x256; found {text!r}")
    depth, height, width = sides
    return depth, height, width


def _costs(config: "ExperimentConfig", size: tuple[int, int, int], labels: int, tflops: float) -> Iterator[str]:
    """Two tables as lines: of each training, and of drawing a pair."""
    from medgen3d.config.experiment import CHAIN
    from medgen3d.recipes.cost import drawing_cost, make_empty_stage, training_cost

    voxels, workers = " x ".join(map(str, size)), config.cluster.num_workers
    try:
        for name in CHAIN:
            make_empty_stage(name, config, size, labels)
    except ValueError as error:
        yield f"Costs of cases of {voxels} voxels: none. {error}. --size counts for another size."
        return
    yield f"Costs of cases of {voxels} voxels with {labels} labels, in bfloat16; times at {tflops:g} TFLOP/s a worker."
    yield ""
    yield f"{'training':<26}{'steps':>8}{'workers x batch':>18}{'TFLOP/step':>12}{'GiB/worker':>12}{'time':>14}"
    for name in CHAIN:
        stage, step = getattr(config.training, name), training_cost(name, config, size, labels)
        batch, time = f"{workers} x {stage.batch_size}", _time(stage.steps * step.tflop / tflops)
        yield f"{name:<26}{stage.steps:>8}{batch:>18}{step.tflop:>12.3g}{step.peak / 2**30:>12.1f}{time:>14}"
    yield ""
    yield f"{'a pair':<26}{'calls':>8}{'TFLOP':>30}{'GiB':>12}{'time':>14}"
    for name in CHAIN:
        pair = drawing_cost(name, config, size, labels)
        memory, time = pair.device_bytes / 2**30, _time(pair.tflop / tflops)
        yield f"{name:<26}{pair.calls:>8}{pair.tflop:>30.3g}{memory:>12.1f}{time:>14}"


def _time(seconds: float) -> str:
    return console.duration(seconds) if seconds >= 60 else f"{seconds:.2g} s"


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
