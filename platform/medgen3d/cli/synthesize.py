"""`medgen3d synthesize`: image and mask pairs; and `medgen3d synthesize status`, from another shell."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medgen3d import console
from medgen3d.cli.exit_codes import NOT_THIS_TIME
from medgen3d.cli.options import RayOptions, grouped
from medgen3d.core.errors import ConfigError

if TYPE_CHECKING:
    from medgen3d.synthesis.summary import SynthesisSummary

app = typer.Typer(name="synthesize", invoke_without_command=True, epilog="Example: medgen3d synthesize status pairs")


@app.callback(epilog="Example: medgen3d synthesize --pipeline hippocampus --count 40 --out pairs")
@grouped
def synthesize(
    ctx: typer.Context,
    pipeline: Annotated[str | None, typer.Option(help="NAME, NAME@3 or NAME@champion; or builtin/NAME.")] = None,
    count: Annotated[int | None, typer.Option(help="Number of pairs that the set shall have.")] = None,
    plan: Annotated[
        Path | None, typer.Option(help="YAML, CSV or Parquet file that says what single pairs shall be like.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Folder or s3:// address of the set; pairs that it holds already are kept.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same pairs.")] = 0,
    masks: Annotated[
        Path | None, typer.Option(help="Draw images for the masks of this prepared, synthetic or Decathlon set.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Which cases of a prepared set --masks means: train, validation or test.")
    ] = "test",
    file_format: Annotated[str, typer.Option("--format", help="nifti, parquet or dicom.")] = "nifti",
    max_redraws: Annotated[
        int | None, typer.Option(help="How often a rejected case is drawn again; by default synthesis.max_redraws.")
    ] = None,
    segmenter: Annotated[
        str, typer.Option(help="Judges the alignment of pairs: auto (if one is registered), NAME@3, or none.")
    ] = "auto",
    train: Annotated[
        Path | None, typer.Option(help="The prepared set of the training, if it was moved: to look for near copies.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Draw pairs again that an earlier run gave up.")
    ] = False,
    *,
    options: RayOptions,
) -> None:
    """Draw image and mask pairs, in the orientation, spacing and label ids of the training data."""
    if ctx.invoked_subcommand is not None:
        return
    if pipeline is None or out is None:
        raise ConfigError("name the pipeline with --pipeline and the folder with --out; see medgen3d synthesize --help")
    redraws = [] if max_redraws is None else [f"synthesis.max_redraws={max_redraws}"]
    experiment = options.begin(*redraws)
    from medgen3d.recipes.cluster import settle_gpus
    from medgen3d.recipes.gate_rules import gate_rules
    from medgen3d.registry.pipeline import resolve_pipeline
    from medgen3d.registry.tracking import Tracking
    from medgen3d.synthesis.run_options import RunOptions, known_format

    kind = known_format(file_format)
    found = resolve_pipeline(Tracking.of(experiment.storage), pipeline)
    rules, idle = gate_rules(found, experiment, segmenter, train)
    for notice in [found.notice, *(f"gate not run: {gate}: {reason}" for gate, reason in idle.items())]:
        if notice:
            console.notice(f"Notice: {notice}")
    command = shlex.join(["medgen3d", *sys.argv[1:]])
    run_options = RunOptions(
        plan=plan,
        masks=masks,
        split=split,
        sampling=options.of_stages(),
        gates=rules,
        retry_failed=retry_failed,
        format=kind,
        licence=found.licence,
        idle_gates=idle,
        command=command,
    )
    with options.on_ray() as show:
        from medgen3d.synthesis import on_ray

        def show_stages(counts: Mapping[str, int], total: int, notes: Mapping[str, str]) -> None:
            for stage, done in counts.items():
                show(stage, done, total, notes.get(stage, ""))

        settings = settle_gpus(experiment).synthesis
        try:
            summary = on_ray.synthesize(
                found,
                count,
                seed,
                out,
                settings,
                show_stages,
                run_options,
                dry_run=options.dry_run,
            )
        except KeyboardInterrupt:
            console.notice(f"What was begun is finished. To go on: {command}")
            raise
    _show(summary, dry_run=options.dry_run)
    if summary.failures:
        raise typer.Exit(NOT_THIS_TIME)


@app.command(epilog="Example: medgen3d synthesize status pairs")
def status(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder or s3:// address of the set.")],
    as_json: Annotated[bool, typer.Option("--json", help="The status file as it is.")] = False,
) -> None:
    """Show how far a run is that works, or worked, into a folder."""
    from medgen3d.artifacts.run_status import RunStatus
    from medgen3d.artifacts.storage import Folder

    found = RunStatus.read(Folder.of(folder))
    if as_json:
        console.say(found.model_dump_json(indent=1))
        return
    state = "silent; it was probably killed" if found.is_silent else found.state
    facts = {
        "state": f"{state}, {found.updated:%Y-%m-%d %H:%M:%S UTC}",
        "pairs": f"{found.done} of {found.planned}, {found.failed} given up",
        "rejected draws": ", ".join(f"{number} {reason}" for reason, number in found.rejections.items()) or "none",
        "rate": f"{found.cases_per_s:.3g} pairs/s" if found.cases_per_s else "not known yet",
        "time left": console.duration(found.eta_s) if found.eta_s is not None and found.state == "running" else "-",
        "driver": f"process {found.pid} on {found.host}, for {console.duration(found.seconds)}",
    }
    if found.message:
        facts["reason"] = found.message
    console.show_table(folder, ("what", "found"), list(facts.items()))
    rows = [(name, stage.num_done, stage.processes, f"{found.busy(name):.0%}") for name, stage in found.stages.items()]
    console.show_table("Stages", ("stage", "pairs done", "processes", "busy"), rows)
    if found.state != "finished" and (found.state != "running" or found.is_silent):
        console.say(f"To go on: {found.resume}")


def _show(summary: "SynthesisSummary", *, dry_run: bool) -> None:
    would = "would be drawn (--dry-run)" if dry_run else "drawn"
    console.say(f"{summary.num_drawn} pairs {would}, {summary.num_kept} were there already: {summary.out}")
    console.say(f"At most {summary.max_bytes / 1e6:.1f} MB before compression")
    if dry_run:
        _show_estimate(summary)
    if summary.rejections:
        counts = ", ".join(f"{number} for {reason}" for reason, number in sorted(summary.rejections.items()))
        console.say(f"Draws that gates rejected: {counts}")
    if summary.failures:
        console.show_table("Given up", ("case", "why"), list(summary.failures.items()), problems=True)


def _show_estimate(summary: "SynthesisSummary") -> None:
    rows = [
        (
            case.case_id,
            " x ".join(map(str, case.shape)),
            case.seed,
            "-" if case.style is None else case.style,
            case.mask or case.partial_mask or "; ".join(case.targets) or "-",
        )
        for case in summary.head
    ]
    console.show_table("The plan begins", ("case", "D x H x W", "seed", "style", "mask or targets"), rows)
    estimate = summary.estimate
    if estimate is None:
        return
    seconds = ", ".join(f"{stage} {spent:.2g} s" for stage, spent in estimate.seconds_per_case.items())
    console.say(f"One pair, measured here: {seconds}")
    console.say(
        f"All of them: about {console.duration(estimate.seconds)}, {estimate.memory_bytes / 1e9:.1f} GB of memory, "
        f"{estimate.disk_bytes / 1e6:.1f} MB on disk; without what gates reject"
    )
