"""The command line: one function per verb, each of which parses, calls and shows. The work is done elsewhere.

Whatever is heavy is imported inside the functions, so that `--help` answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from medgen3d import __version__, console
from medgen3d.cli import serve, serving, synthesize
from medgen3d.cli.options import (
    Address,
    BundleChoice,
    ConfigFile,
    DryRun,
    Overrides,
    PipelineReference,
    Presets,
    Verbose,
    configuration,
)
from medgen3d.core.errors import ConfigError, Medgen3dError

_INTERRUPTED = {
    "train": "checkpoints are kept: the same command with --resume goes on from the last one",
    "evaluate": "no new report was written: the same command starts again, with the segmenter as far as it is trained",
    "request": "the job goes on: medgen3d request --resume ID fetches its result",
    **dict.fromkeys(("ingest", "synthesize", "usefulness", "demo"), "the same command goes on with what is finished"),
}
"""What Ctrl-C leaves, by command."""


class _Verbs(TyperGroup):
    """Turns what a user can mend into one sentence and exit code 2, and Ctrl-C into 130. Bugs keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Medgen3dError as error:
            console.notice(f"Error: {error}")
            raise typer.Exit(2) from error
        except KeyboardInterrupt as interrupt:
            console.notice(f"Interrupted; {_INTERRUPTED.get(str(ctx.invoked_subcommand), 'what is finished is kept')}.")
            raise typer.Exit(130) from interrupt


app = typer.Typer(
    cls=_Verbs,
    name="medgen3d",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: medgen3d demo",
)
pipeline_app = typer.Typer(no_args_is_help=True, epilog="Example: medgen3d pipeline list")
config_app = typer.Typer(no_args_is_help=True, epilog="Example: medgen3d config show --preset smoke")
app.add_typer(pipeline_app, name="pipeline", help="Pin three trained stages as one pipeline, and promote it.")
app.add_typer(synthesize.app, name="synthesize")
app.add_typer(config_app, name="config", help="Show configurations and presets.")
serve.register(app)
serving.register(app)


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


@app.command(epilog="Example: medgen3d phantom --kind thorax_ct --count 24 --out phantoms")
def phantom(
    out: Annotated[Path, typer.Option(help="New folder for the data set.")],
    kind: Annotated[str, typer.Option(help="thorax_ct or brain_mr.")] = "thorax_ct",
    count: Annotated[int, typer.Option(help="Number of cases.")] = 24,
    seed: Annotated[int, typer.Option(help="Same seed, same files.")] = 0,
) -> None:
    """Make a labelled data set of phantoms, in Medical Segmentation Decathlon layout."""
    from medgen3d.ingest.phantom import write_phantoms

    with console.progress() as show:
        write_phantoms(kind, count, seed, out, lambda done, total: show("phantoms", done, total))
    console.say(f"{count} phantoms: {out}")
    console.say(f"Next: medgen3d ingest {out} --out {out}-prepared")


@app.command(epilog="Example: medgen3d ingest Task04_Hippocampus --out prepared --dry-run")
def ingest(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Decathlon, nnU-Net, folder pairs or DICOM + NIfTI.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the prepared set.")],
    name: Annotated[str | None, typer.Option(help="Name of the data set; by default as the source says.")] = None,
    labels: Annotated[Path | None, typer.Option(help='JSON file {"1": "liver", ...}.')] = None,
    image: Annotated[str, typer.Option(help="Name of the image within a case folder.")] = "image.nii.gz",
    mask: Annotated[str, typer.Option(help="Name of the mask within a case folder.")] = "mask.nii.gz",
    patient_regex: Annotated[
        str | None, typer.Option(help="Finds the patient in a case's name: one patient goes into one split.")
    ] = None,
    patients: Annotated[Path | None, typer.Option(help="CSV file with the columns case and patient.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad cases out, and list them.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a different prepared set in --out.")] = False,
    config: ConfigFile = None,
    preset: Presets = None,
    override: Overrides = None,
    address: Address = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Verify every case, and write nothing.")] = False,
    verbose: Verbose = False,
) -> None:
    """Verify labelled volumes and turn them into a prepared set for training."""
    experiment = configuration(config, preset, override)
    console.begin_logging(verbose=verbose)
    from medgen3d.ingest.problems import BadCasesError
    from medgen3d.recipes.cluster import connect

    try:
        with connect(address, verbose=verbose), console.progress() as show:
            from medgen3d.ingest import on_ray

            info = on_ray.ingest(
                source,
                out,
                experiment.ingest,
                seed=experiment.seed,
                name=name,
                image_name=image,
                mask_name=mask,
                labels_file=labels,
                patient_regex=patient_regex,
                patients_csv=patients,
                skip_bad=skip_bad,
                overwrite=overwrite,
                dry_run=dry_run,
                progress=show,
            )
    except BadCasesError as error:
        rows = [(each.case, each.kind, each.found, each.expected, each.remedy) for each in error.problems]
        console.show_table("Problems", ("case", "problem", "found", "expected", "what to do"), rows, problems=True)
        raise
    _show_prepared(info)
    console.say(f"Nothing was written (--dry-run): {out}" if dry_run else f"Prepared set: {out}")


def _show_prepared(info: Any) -> None:
    splits = ("train", "validation", "test")
    facts = {
        "data set": f"{info.name}{' (PHANTOM)' if info.phantom else ''}, {info.modality}",
        "cases": ", ".join(f"{split} {len(info.case_ids(split))}" for split in splits),
        "patients": "known" if info.patients_known else "unknown: every case counts as a patient of its own",
        "labels": ", ".join(f"{label_id} {label}" for label_id, label in info.labels.items()),
        "spacing": " x ".join(f"{length:g}" for length in info.spacing_mm) + " mm (D x H x W)",
        "plane": " x ".join(str(length) for length in info.plane) + " pixels (H x W)",
        "left out": ", ".join(info.skipped) or "none",
    }
    console.show_table("Prepared set", ("what", "found"), list(facts.items()))


@app.command(epilog="Example: medgen3d train all --data prepared --set training.refiner.steps=2000")
def train(
    stage: Annotated[
        str,
        typer.Argument(
            metavar="STAGE", help="mask_generator, image_sequence_generator, refiner, all (these three), or segmenter."
        ),
    ],
    data: Annotated[Path, typer.Option(help="A prepared set.")],
    name: Annotated[str | None, typer.Option(help="Name of the run; by default from data set and settings.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    config: ConfigFile = None,
    preset: Presets = None,
    override: Overrides = None,
    address: Address = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Train a stage, or the three of the chain, and register what it has learnt. Ctrl-C leaves a checkpoint."""
    experiment = configuration(config, preset, override)
    stages = _stages(stage)
    console.begin_logging(verbose=verbose)
    from medgen3d.recipes.train import plan_runs, train_stages

    runs = plan_runs(stages, data, experiment, name)
    if dry_run:
        settings = [getattr(experiment.training, run.stage) for run in runs]
        rows = [(run.folder_name, each.steps, each.batch_size) for run, each in zip(runs, settings, strict=True)]
        console.show_table("Would train (--dry-run)", ("run", "steps", "examples per worker and step"), rows)
        return
    from medgen3d.recipes.cluster import connect, settle_gpus

    with connect(address, verbose=verbose), console.progress() as show:
        results = train_stages(
            runs,
            data,
            settle_gpus(experiment),
            lambda stage, step, steps, values: show(f"train {stage}", step, steps, console.figures(values)),
            resume=resume,
        )
    for result in results:
        if result.version is None:
            console.say(f"{result.trained.run.stage}: stopped at step {result.trained.step}; go on with --resume")
            raise typer.Exit(130)
        console.say(f"{result.trained.run.stage}: registered as {result.version}")


def _stages(wanted: str) -> list[str]:
    from medgen3d.config.experiment import CHAIN, TrainingConfig

    known = list(TrainingConfig.model_fields)
    if wanted != "all" and wanted not in known:
        raise ConfigError(f"unknown stage {wanted!r}; there are {', '.join(known)}, and all")
    return list(CHAIN) if wanted == "all" else [wanted]


@pipeline_app.command("create", epilog="Example: medgen3d pipeline create hippocampus --refiner 3")
def pipeline_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The data set's name.")],
    mask_generator: BundleChoice = "latest",
    image_sequence_generator: BundleChoice = "latest",
    refiner: BundleChoice = "latest",
    data: Annotated[
        Path | None, typer.Option(help="The prepared set of the training, if it was moved: to learn limits for gates.")
    ] = None,
    config: ConfigFile = None,
    preset: Presets = None,
    override: Overrides = None,
) -> None:
    """Pin one trained bundle per stage as the next version of a pipeline, its candidate."""
    tracking = _tracking(config, preset, override)
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


@pipeline_app.command("promote", epilog="Example: medgen3d pipeline promote hippocampus@3 --report report")
def pipeline_promote(
    reference: PipelineReference,
    report: Annotated[
        Path | None, typer.Option(help="Folder of the report of `medgen3d evaluate` about this version.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Promote it whatever the report says; the registry records that.")
    ] = False,
    config: ConfigFile = None,
    preset: Presets = None,
    override: Overrides = None,
) -> None:
    """Make a version of a pipeline (by default the candidate) its champion, if its report says that it is good."""
    tracking = _tracking(config, preset, override)
    from medgen3d.artifacts.report_files import read_report
    from medgen3d.registry.promotion import promote, promotion_note

    promoted = promote(tracking, reference, read_report(report) if report else None, force=force)
    console.say(f"{promoted}, now the champion (report: {promotion_note(promoted)})")


@pipeline_app.command("list", epilog="Example: medgen3d pipeline list")
def pipeline_list(config: ConfigFile = None, preset: Presets = None, override: Overrides = None) -> None:
    """List every pipeline and its versions."""
    tracking = _tracking(config, preset, override)
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


@pipeline_app.command("show", epilog="Example: medgen3d pipeline show hippocampus@champion")
def pipeline_show(
    reference: PipelineReference, config: ConfigFile = None, preset: Presets = None, override: Overrides = None
) -> None:
    """Show what a version of a pipeline pins."""
    tracking = _tracking(config, preset, override)
    from medgen3d.registry.pipeline import describe
    from medgen3d.registry.promotion import promotion_note

    found = describe(tracking, reference)
    rows = [(stage, bundle.model, bundle.version, bundle.weights_sha256) for stage, bundle in found.info.stages.items()]
    console.show_table(str(found.version), ("stage", "bundle", "version", "SHA-256 of the weights"), rows)
    console.say(found.info.model_dump_json(indent=2, exclude={"stages"}))
    console.say(f"Report: {promotion_note(found.version) or 'none'}")


@pipeline_app.command("export", epilog="Example: medgen3d pipeline export hippocampus@3 --out hippocampus --half")
def pipeline_export(
    reference: PipelineReference,
    out: Annotated[Path, typer.Option(help="Folder for the pipeline; an older one in it is replaced.")],
    half: Annotated[bool, typer.Option("--half", help="Weights as float16: half the size, 11 bits of each.")] = False,
    data: Annotated[
        Path | None, typer.Option(help="The prepared set of the training, to learn limits for gates anew.")
    ] = None,
    config: ConfigFile = None,
    preset: Presets = None,
    override: Overrides = None,
) -> None:
    """Write a version of a pipeline, bundles included, as a folder that needs no registry."""
    tracking = _tracking(config, preset, override)
    from medgen3d.artifacts.pipeline import write_portable
    from medgen3d.registry.pipeline import resolve_pipeline, with_limits

    found = resolve_pipeline(tracking, reference)
    if found.notice:
        console.notice(f"Notice: {found.notice}")
    written = write_portable(out, with_limits(found, data) if data else found, half=half)
    size = sum(path.stat().st_size for path in map(out.joinpath, written.files)) / 1e6
    console.say(f"{found.name} version {written.version}, {size:.1f} MB: {out}")


@app.command(epilog="Example: medgen3d pipelines hippocampus")
def pipelines(
    name: Annotated[str | None, typer.Argument(help="Show this pipeline's model card.")] = None,
) -> None:
    """List the trained pipelines that are built in: synthesize --pipeline builtin/NAME works at once."""
    from medgen3d.registry.builtin import PREFIX, describe_builtin, list_builtin

    if name is not None:
        console.say(describe_builtin(name.removeprefix(PREFIX)).card.rstrip())
        return
    rows = [
        (
            PREFIX + each.name,
            ", ".join(label for label_id, label in each.info.labels.items() if label_id),
            " x ".join(f"{length:g}" for length in each.info.spacing_mm),
            each.info.modality,
            f"{each.num_bytes / 1e6:.1f}",
            each.facts.licence,
            each.facts.summary,
        )
        for each in list_builtin()
    ]
    heads = ("pipeline", "labels", "spacing D x H x W [mm]", "modality", "MB", "licence", "what it draws")
    console.show_table("Built-in pipelines", heads, rows)


def _tracking(config: Path | None, preset: list[str] | None, override: list[str] | None) -> Any:
    experiment = configuration(config, preset, override)
    from medgen3d.registry.tracking import Tracking

    return Tracking.of(experiment.storage)


@app.command(epilog="Example: medgen3d usefulness --data prepared --out usefulness --dry-run")
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
    config: ConfigFile = None,
    preset: Presets = None,
    override: Overrides = None,
    address: Address = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Measure what synthetic pairs are worth for training a segmenter. Repeat the command to go on with a study."""
    experiment = configuration(config, preset, override)
    console.begin_logging(verbose=verbose)
    from dataclasses import replace

    from medgen3d.recipes.usefulness_study.plan import plan_study, results_so_far

    study = plan_study(data, out, experiment, sizes=sizes, num_seeds=seeds, num_pairs=synthetic, pipeline=pipeline)
    left = study.unfinished(results_so_far(study))
    if dry_run:
        rows = [
            (size.num_cases, study.how_pairs_come(size), sum(trial.size == size for trial in left))
            for size in study.sizes
        ]
        console.show_table("Would measure (--dry-run)", ("real cases", "synthetic pairs", "trials"), rows)
        console.say(f"{len(left)} trials of {experiment.training.segmenter.steps} steps")
        return
    from medgen3d.recipes.cluster import connect, settle_gpus

    with connect(address, verbose=verbose), console.progress() as show:
        from medgen3d.recipes.usefulness_study.study import run_study

        results = run_study(replace(study, config=settle_gpus(experiment)), show)
    _show_usefulness(results)
    console.say(f"Usefulness: {out / 'usefulness.json'}")


def _show_usefulness(results: Any) -> None:
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


@app.command(epilog="Example: medgen3d evaluate --real prepared --synthetic pairs --out report")
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
    config: ConfigFile = None,
    preset: Presets = None,
    override: Overrides = None,
    address: Address = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Measure how good synthetic pairs are, next to real ones: one page with verdicts, figures and pictures."""
    experiment = configuration(config, preset, override)
    console.begin_logging(verbose=verbose)
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
    if dry_run:
        console.show_table("Would evaluate (--dry-run)", ("section", "of what"), list(sections_of(planned).items()))
        return
    from medgen3d.recipes.cluster import connect, settle_gpus

    with connect(address, verbose=verbose), console.progress() as show:
        report = run_evaluation(planned, settle_gpus(experiment), show)
    _show_verdicts(report)
    console.say(f"Report: {out / 'report.html'}")
    if gate and not report.passed:
        missed = [verdict.metric for verdict in report.verdicts if not verdict.passed]
        console.notice(f"{len(missed)} of {len(report.verdicts)} goals are not met: {', '.join(missed)}")
        raise typer.Exit(1)


def _show_verdicts(report: Any) -> None:
    from medgen3d.artifacts.report_page import number, outcome

    rows = [
        (each.metric, each.goal, number(each.value), number(each.floor), number(each.ratio), outcome(each))
        for each in report.verdicts
    ]
    console.show_table("Verdicts", ("metric", "goal", "value", "floor", "x floor", "verdict"), rows)


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


@config_app.command("show", epilog="Example: medgen3d config show --preset workstation --preset thoracic_ct")
def config_show(config: ConfigFile = None, preset: Presets = None, override: Overrides = None) -> None:
    """Show the whole configuration that the given file, presets and settings make."""
    console.say(configuration(config, preset, override).to_yaml().rstrip())


@config_app.command("presets", epilog="Example: medgen3d config presets smoke")
def config_presets(
    name: Annotated[str | None, typer.Argument(help="Show this preset's YAML, with its comments.")] = None,
) -> None:
    """List the shipped presets."""
    from medgen3d.config.load import preset_names, preset_text

    if name is not None:
        console.say(preset_text(name).rstrip())
        return
    for each in preset_names():
        console.say(f"{each:<14}{preset_text(each).splitlines()[0].removeprefix('# ')}")
