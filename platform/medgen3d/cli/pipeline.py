"""`medgen3d pipeline`: versions of pipelines in the registry."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medgen3d import console
from medgen3d.cli.options import ConfigOptions, grouped

if TYPE_CHECKING:
    from medgen3d.registry.tracking import Tracking

app = typer.Typer(
    name="pipeline",
    no_args_is_help=True,
    help="Pin three trained stages as one pipeline, and promote it.",
    epilog="Example: medgen3d pipeline list",
)
BundleChoice = Annotated[str, typer.Option(help="Version number, alias or latest; of another data set: NAME@3.")]
PipelineReference = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="NAME, NAME@3 or NAME@champion.")]


@app.command(epilog="Example: medgen3d pipeline create hippocampus --refiner 3")
@grouped
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The data set's name.")],
    mask_generator: BundleChoice = "latest",
    image_sequence_generator: BundleChoice = "latest",
    refiner: BundleChoice = "latest",
    data: Annotated[
        Path | None, typer.Option(help="The prepared set of the training, if it was moved: to learn limits for gates.")
    ] = None,
    *,
    options: ConfigOptions,
) -> None:
    """Pin one trained bundle per stage as the next version of a pipeline, its candidate."""
    tracking = _tracking(options)
    from medgen3d.registry.pipeline import create_pipeline

    choices = {
        "mask_generator": mask_generator,
        "image_sequence_generator": image_sequence_generator,
        "refiner": refiner,
    }
    created = create_pipeline(tracking, name, choices, data)
    if created.info.limits is None:
        console.notice("Notice: without limits for gates, since the prepared set of the training is not where it was")
    console.say(f"{created.version}, the candidate")
    console.say(f"Next: medgen3d synthesize --pipeline {name}@{created.version.number} --count 40 --out pairs")


@app.command(epilog="Example: medgen3d pipeline promote hippocampus@3 --report report")
@grouped
def promote(
    reference: PipelineReference,
    report: Annotated[
        Path | None, typer.Option(help="Folder of the report of `medgen3d evaluate` about this version.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Promote it whatever the report says; the registry records that.")
    ] = False,
    *,
    options: ConfigOptions,
) -> None:
    """Make a version of a pipeline (by default the candidate) its champion, if its report says that it is good."""
    tracking = _tracking(options)
    from medgen3d.artifacts.report_files import read_report
    from medgen3d.registry import promotion

    promoted = promotion.promote(tracking, reference, read_report(report) if report else None, force=force)
    console.say(f"{promoted}, now the champion (report: {promotion.promotion_note(promoted)})")


@app.command("list", epilog="Example: medgen3d pipeline list")
@grouped
def list_all(options: ConfigOptions) -> None:
    """List every pipeline and its versions."""
    tracking = _tracking(options)
    from medgen3d.registry.pipeline import list_pipelines
    from medgen3d.registry.promotion import promotion_note

    rows = [
        (
            name,
            version.number,
            ", ".join(version.aliases),
            f"{version.created:%Y-%m-%d %H:%M UTC}",
            promotion_note(version),
        )
        for name, versions in list_pipelines(tracking).items()
        for version in versions
    ]
    console.show_table(f"Pipelines in {tracking.uri}", ("pipeline", "version", "aliases", "made", "report"), rows)


@app.command(epilog="Example: medgen3d pipeline show hippocampus@champion")
@grouped
def show(reference: PipelineReference, *, options: ConfigOptions) -> None:
    """Show what a version of a pipeline pins."""
    tracking = _tracking(options)
    from medgen3d.registry.pipeline import describe
    from medgen3d.registry.promotion import promotion_note

    found = describe(tracking, reference)
    rows = [(stage, bundle.model, bundle.version, bundle.weights_sha256) for stage, bundle in found.info.stages.items()]
    console.show_table(str(found.version), ("stage", "bundle", "version", "SHA-256 of the weights"), rows)
    console.say(found.info.model_dump_json(indent=2, exclude={"stages"}))
    console.say(f"Report: {promotion_note(found.version) or 'none'}")


@app.command(epilog="Example: medgen3d pipeline export hippocampus@3 --out hippocampus --half")
@grouped
def export(
    reference: PipelineReference,
    out: Annotated[Path, typer.Option(help="Folder for the pipeline; an older one in it is replaced.")],
    half: Annotated[bool, typer.Option("--half", help="Weights as float16: half the size, 11 bits of each.")] = False,
    data: Annotated[
        Path | None, typer.Option(help="The prepared set of the training, to learn limits for gates anew.")
    ] = None,
    *,
    options: ConfigOptions,
) -> None:
    """Write a version of a pipeline, bundles included, as a folder that needs no registry."""
    tracking = _tracking(options)
    from medgen3d.artifacts.pipeline import write_portable
    from medgen3d.registry.pipeline import resolve_pipeline, with_limits

    found = resolve_pipeline(tracking, reference)
    if found.notice:
        console.notice(f"Notice: {found.notice}")
    written = write_portable(out, with_limits(found, data) if data else found, half=half)
    size = sum(path.stat().st_size for path in map(out.joinpath, written.files)) / 1e6
    console.say(f"{found.name} version {written.version}, {size:.1f} MB: {out}")


def _tracking(options: ConfigOptions) -> "Tracking":
    from medgen3d.registry.tracking import Tracking

    return Tracking.of(options.load().storage)
