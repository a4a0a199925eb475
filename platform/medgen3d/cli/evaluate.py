"""`medgen3d evaluate`: the report on a synthetic set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medgen3d import console
from medgen3d.cli.exit_codes import NOT_THIS_TIME
from medgen3d.cli.options import RayOptions, grouped

if TYPE_CHECKING:
    from medgen3d.artifacts.report import Report

app = typer.Typer()


@app.command(epilog="Example: medgen3d evaluate --real prepared --synthetic pairs --out report")
@grouped
def evaluate(
    real: Annotated[Path, typer.Option(help="A prepared set, of which the test split counts, or a Decathlon folder.")],
    synthetic: Annotated[Path, typer.Option(help="A synthetic set.")],
    out: Annotated[Path, typer.Option(help="Folder for the report.")],
    train: Annotated[
        Path | None, typer.Option(help="What the pipeline was trained on; by default the training split of --real.")
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option(help="NAME@3 of the pipeline that drew the set: ask its stages which cases they know.")
    ] = None,
    segmenter: Annotated[
        str, typer.Option(help="The judge, trained on real pairs: auto (registered or trained now), NAME@3, or none.")
    ] = "auto",
    usefulness: Annotated[
        Path | None, typer.Option(help="Folder of a study of `medgen3d usefulness` with this pipeline.")
    ] = None,
    extractor: Annotated[
        str | None, typer.Option(help="Pretrained network for FID and KID, such as radimagenet-resnet50.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="File with the weights of --extractor.")] = None,
    gate: Annotated[
        Path | None, typer.Option(help="YAML file of goals instead of the default ones; exit code 1 if one is missed.")
    ] = None,
    *,
    options: RayOptions,
) -> None:
    """Measure how good synthetic pairs are, next to real ones: one page with verdicts, figures and pictures."""
    experiment = options.begin()
    from medgen3d.recipes.evaluate import plan_evaluation, run_evaluation, sections_of

    planned = plan_evaluation(
        real,
        synthetic,
        out,
        experiment,
        train=train,
        pipeline=pipeline,
        segmenter=segmenter,
        usefulness=usefulness,
        extractor=extractor,
        weights=weights,
        goals=gate,
    )
    if planned.sets.real.marked:
        cases = planned.sets.real.marked
        console.notice(f"Notice: {len(cases)} of the real cases are marked as synthetic, the first is {cases[0]}")
    if options.dry_run:
        console.show_table("Would evaluate (--dry-run)", ("section", "of what"), list(sections_of(planned).items()))
        return
    from medgen3d.recipes.cluster import settle_gpus

    with options.on_ray() as show:
        report = run_evaluation(planned, settle_gpus(experiment), show)
    _show_verdicts(report)
    console.say(f"Report: {out / 'report.html'}")
    if gate and not report.passed:
        missed = [verdict.metric for verdict in report.verdicts if not verdict.passed]
        console.notice(f"{len(missed)} of {len(report.verdicts)} goals are not met: {', '.join(missed)}")
        raise typer.Exit(NOT_THIS_TIME)


def _show_verdicts(report: "Report") -> None:
    from medgen3d.artifacts.report_page import number, outcome

    rows = [
        (each.metric, each.goal, number(each.value), number(each.floor), number(each.ratio), outcome(each))
        for each in report.verdicts
    ]
    console.show_table("Verdicts", ("metric", "goal", "value", "floor", "x floor", "verdict"), rows)
