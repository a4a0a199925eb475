"""`medgen3d train`: a prepared set becomes trained bundles in the registry."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medgen3d import console
from medgen3d.cli.exit_codes import INTERRUPTED
from medgen3d.cli.options import RayOptions, grouped
from medgen3d.core.errors import ConfigError

if TYPE_CHECKING:
    from medgen3d.config.training import TrainingConfig
    from medgen3d.training.run import TrainingRun

app = typer.Typer()


@app.command(epilog="Example: medgen3d train all --data prepared --set training.refiner.steps=2000")
@grouped
def train(
    stage: Annotated[
        str,
        typer.Argument(
            metavar="STAGE", help="mask_generator, image_sequence_generator, refiner, all (these three), or segmenter."
        ),
    ],
    data: Annotated[Path, typer.Option(help="A prepared set.")],
    name: Annotated[str | None, typer.Option(help="Name of the run; by default from data set and settings.")] = None,
    new: Annotated[
        bool, typer.Option("--new", help="Put an earlier run of this name aside, and begin afresh.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", hidden=True, help="As without it, for scripts that say it.")
    ] = False,
    *,
    options: RayOptions,
) -> None:
    """Train a stage, or the three of the chain, and register what it has learnt; repeated, the command goes on."""
    if new and resume:
        raise ConfigError("--new begins afresh and --resume goes on; give one of them")
    experiment = options.begin()
    stages = _stages(stage)
    from medgen3d.recipes.train import plan_runs, train_stages

    runs = plan_runs(stages, data, experiment, name)
    if options.dry_run:
        _show_plan(runs, experiment.training)
        return
    from medgen3d.recipes.cluster import settle_gpus

    with options.on_ray() as show:
        results = train_stages(
            runs,
            data,
            settle_gpus(experiment),
            lambda stage, step, steps, values: show(f"train {stage}", step, steps, console.figures(values)),
            anew=new,
        )
    for result in results:
        if result.version is None:
            console.say(f"{result.trained.run.stage}: stopped at step {result.trained.step}; the same command goes on")
            raise typer.Exit(INTERRUPTED)
        console.say(f"{result.trained.run.stage}: registered as {result.version}")


def _stages(wanted: str) -> list[str]:
    from medgen3d.config.experiment import CHAIN
    from medgen3d.config.training import TrainingConfig

    known = list(TrainingConfig.model_fields)
    if wanted != "all" and wanted not in known:
        raise ConfigError(f"unknown stage {wanted!r}; there are {', '.join(known)}, and all")
    return list(CHAIN) if wanted == "all" else [wanted]


def _show_plan(runs: "list[TrainingRun]", training: "TrainingConfig") -> None:
    settings = [getattr(training, run.stage) for run in runs]
    rows = [(run.folder_name, each.steps, each.batch_size) for run, each in zip(runs, settings, strict=True)]
    console.show_table("Would train (--dry-run)", ("run", "steps", "examples per worker and step"), rows)
