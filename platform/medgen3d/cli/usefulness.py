"""`medgen3d usefulness`: a study of what synthetic pairs are worth for training a segmenter."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medgen3d import console
from medgen3d.cli.options import RayOptions, grouped

if TYPE_CHECKING:
    from medgen3d.artifacts.usefulness_results import UsefulnessResults

app = typer.Typer()


@app.command(epilog="Example: medgen3d usefulness --data prepared --out usefulness --dry-run")
@grouped
def usefulness(
    data: Annotated[Path, typer.Option(help="A prepared set with test cases.")],
    out: Annotated[Path, typer.Option(help="Folder for the study, new or to go on with.")],
    pipeline: Annotated[
        str | None, typer.Option(help="NAME@3, trained on all cases of --data; by default one is trained.")
    ] = None,
    sizes: Annotated[
        str | None, typer.Option(help="Numbers of real cases, such as 5,10,all; by default 5,10,20,all.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Repetitions of every trial.")] = 3,
    synthetic: Annotated[
        int | None, typer.Option(help="Pairs of each generator; by default as many as there are real training cases.")
    ] = None,
    *,
    options: RayOptions,
) -> None:
    """Measure what synthetic pairs are worth for training a segmenter. Repeat the command to go on with a study."""
    experiment = options.begin()
    from medgen3d.recipes.usefulness_study.plan import plan_study, results_so_far

    study = plan_study(data, out, experiment, sizes=sizes, num_seeds=seeds, num_pairs=synthetic, pipeline=pipeline)
    left = study.unfinished(results_so_far(study))
    if options.dry_run:
        rows = [
            (size.num_cases, study.how_pairs_come(size), sum(trial.size == size for trial in left))
            for size in study.sizes
        ]
        console.show_table("Would measure (--dry-run)", ("real cases", "synthetic pairs", "trials"), rows)
        console.say(f"{len(left)} trials of {experiment.training.segmenter.steps} steps")
        return
    from medgen3d.recipes.cluster import settle_gpus

    with options.on_ray() as show:
        from medgen3d.recipes.usefulness_study.study import run_study

        results = run_study(replace(study, config=settle_gpus(experiment)), show)
    _show_usefulness(results)
    console.say(f"Usefulness: {out / 'usefulness.json'}")


def _show_usefulness(results: "UsefulnessResults") -> None:
    from medgen3d.evaluation.usefulness import usefulness as findings

    section = findings(results).section
    for table in section.tables:
        console.show_table(table.title, table.columns, [[_cell(value) for value in row] for row in table.rows])
    rows = [
        (metric.name, _cell(metric.value), " to ".join(map(_cell, metric.interval or (None,))))
        for metric in section.metrics
    ]
    console.show_table("Usefulness", ("metric", "value", "95 % over seeds"), rows)


def _cell(value: object) -> str:
    """Dice to three decimals; a dash for what is not known."""
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
