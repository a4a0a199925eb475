"""Pairs of a built-in pipeline, then the whole main job on phantoms, small enough for a laptop.

Each step leaves its result in the demo's folder, so that a repeated run goes on after the last step that is finished.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medgen3d.artifacts.pipeline import Pipeline
from medgen3d.config.experiment import CHAIN, ExperimentConfig, StageActors, StorageConfig, SynthesisConfig
from medgen3d.config.load import load_config
from medgen3d.core.errors import DataError
from medgen3d.recipes.cluster import connect, settle_gpus
from medgen3d.registry.builtin import ROOT, resolve_builtin

KIND = "thorax_ct"
SIZE = (16, 32, 32)
NUM_PHANTOMS = 24
NUM_PAIRS = 4
SHOWN = "builtin/hippocampus"
NUM_SHOWN = 2
_SETTINGS = "demo.yaml"

Show = Callable[..., None]
"""(what, done, total, note=""): how far a step is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """The demo's folder and its configuration. `name` is the data set's, and so the pipeline's.

    builtin: Folder of the pipelines that ship with medgen3d.
    """

    out: Path
    config: ExperimentConfig
    name: str = f"phantom_{KIND}"
    builtin: Path = ROOT

    @property
    def shown(self) -> Path:
        """Pairs of the built-in pipeline."""
        return self.out / SHOWN.rpartition("/")[2]

    @property
    def picture(self) -> Path:
        """Of the pairs of the built-in pipeline."""
        return self.shown.with_suffix(".png")

    @property
    def phantoms(self) -> Path:
        return self.out / "phantoms"

    @property
    def prepared(self) -> Path:
        return self.out / "prepared"

    @property
    def pairs(self) -> Path:
        return self.out / "pairs"

    @property
    def report(self) -> Path:
        return self.out / "report"


def plan_demo(out: Path, overrides: Sequence[str] = ()) -> Demo:
    """The demo in a folder that is new or holds a demo of the same settings; nothing is written.

    MLflow goes into the folder as well, whatever the environment says: a demo leaves no trace elsewhere.

    Raises:
        ConfigError: An override is not valid.
        DataError: The folder holds something else.
    """
    storage = StorageConfig(root=out / "runs")
    storage = storage.model_copy(update={"tracking_uri": storage.mlflow_uri})
    config = load_config(presets=["demo"], overrides=overrides).model_copy(update={"storage": storage})
    demo, settings = Demo(out=out, config=config), out / _SETTINGS
    if settings.is_file() and settings.read_text() != config.to_yaml():
        raise DataError(f"{out} holds a demo with other settings; remove the folder, or name another one with --out")
    if not settings.is_file() and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{out} exists and holds no demo; name another folder with --out")
    return demo


def run_demo(
    demo: Demo,
    announce: Callable[[str], None],
    progress: Callable[[], AbstractContextManager[Show]],
    *,
    verbose: bool = False,
) -> None:
    """Do all steps, each announced and timed, with a Ray of its own on this machine.

    Args:
        demo: From `plan_demo`.
        announce: Told what begins and what is finished.
        progress: Opened once per step; what it gives is told how far the step is.
        verbose: Show what Ray and its workers log.

    Raises:
        Medgen3dError: A step failed; those before it need not be repeated.
        KeyboardInterrupt: Training was stopped; the same call goes on.
    """
    try:
        demo.out.mkdir(parents=True, exist_ok=True)
        (demo.out / _SETTINGS).write_text(demo.config.to_yaml())
    except OSError as error:
        raise DataError(f"cannot write to {demo.out}: {error.strerror}") from error
    begun = time.monotonic()
    announce("Starting Ray on this machine ...")
    with connect(verbose=verbose):
        demo = replace(demo, config=settle_gpus(demo.config))
        for number, (name, step) in enumerate(STEPS.items(), start=1):
            announce(f"[{number}/{len(STEPS)}] {name} ...")
            since = time.monotonic()
            with progress() as show:
                result = step(demo, show)
            announce(f"[{number}/{len(STEPS)}] {name}: {result} ({time.monotonic() - since:.0f} s)")
    announce(f"All steps took {time.monotonic() - begun:.0f} s")


def _builtin(demo: Demo, show: Show) -> str:
    from medgen3d.artifacts.pictures import montage
    from medgen3d.artifacts.synthetic_set import SyntheticSet

    # Alone, each pair needs the least time; most of it goes into refining.
    settings = demo.config.synthesis.model_copy(update={"batch": None, "num_actors": StageActors(refiner=2)})
    _draw(resolve_builtin(SHOWN, demo.builtin), NUM_SHOWN, demo.shown, settings, demo.config.seed, show)
    pairs, cases = SyntheticSet(demo.shown), []
    for case_id in pairs.case_ids:
        image, mask = pairs.read(case_id)
        cases.append((case_id, image.voxels.astype(np.float32), mask.voxels.astype(np.int64)))
    demo.picture.write_bytes(montage(cases, pairs.info.labels, pairs.info.spacing_mm, num_columns=2))
    return f"{NUM_SHOWN} pairs in {demo.shown}, as a picture in {demo.picture}"


def _phantoms(demo: Demo, show: Show) -> str:
    from medgen3d.ingest.phantom import write_phantoms

    if not (demo.phantoms / "dataset.json").exists():
        _remove_unfinished(demo.phantoms)
        write_phantoms(
            KIND, NUM_PHANTOMS, demo.config.seed, demo.phantoms, lambda done, total: show("phantoms", done, total), SIZE
        )
    return f"{NUM_PHANTOMS} labelled phantoms"


def _ingest(demo: Demo, show: Show) -> str:
    from medgen3d.artifacts.prepared_set import PreparedSet
    from medgen3d.ingest.on_ray import ingest

    if not (demo.prepared / "dataset.yaml").exists():
        ingest(demo.phantoms, demo.prepared, demo.config.ingest, seed=demo.config.seed, name=demo.name, progress=show)
    return f"{len(PreparedSet(demo.prepared))} cases verified and prepared"


def _train(demo: Demo, show: Show) -> str:
    from medgen3d.recipes.train import plan_runs, train_stages

    runs = plan_runs(CHAIN, demo.prepared, demo.config, "demo")
    results = train_stages(
        runs,
        demo.prepared,
        demo.config,
        lambda stage, step, steps, _metrics: show(stage, step, steps),
    )
    if results[-1].version is None:
        raise KeyboardInterrupt
    return ", ".join(str(result.version) for result in results)


def _pipeline(demo: Demo, _show: Show) -> str:
    from medgen3d.registry.pipeline import create_pipeline, list_pipelines
    from medgen3d.registry.tracking import Tracking

    tracking = Tracking.of(demo.config.storage)
    if demo.name not in list_pipelines(tracking):
        create_pipeline(tracking, demo.name)
    return f"{list_pipelines(tracking)[demo.name][-1]} is the candidate"


def _synthesize(demo: Demo, show: Show) -> str:
    from medgen3d.registry.pipeline import resolve_pipeline
    from medgen3d.registry.tracking import Tracking

    pipeline = resolve_pipeline(Tracking.of(demo.config.storage), demo.name)
    _draw(pipeline, NUM_PAIRS, demo.pairs, demo.config.synthesis, demo.config.seed, show)
    return f"{NUM_PAIRS} image and mask pairs"


def _draw(pipeline: Pipeline, num_pairs: int, out: Path, settings: SynthesisConfig, seed: int, show: Show) -> None:
    from medgen3d.synthesis.on_ray import synthesize

    def show_stages(counts: Mapping[str, int], total: int, notes: Mapping[str, str]) -> None:
        for stage, done in counts.items():
            show(stage, done, total, notes.get(stage, ""))

    summary = synthesize(pipeline, num_pairs, seed, out, settings, progress=show_stages)
    if summary.failures:
        raise DataError(f"{len(summary.failures)} pairs could not be drawn: {next(iter(summary.failures.values()))}")


def _evaluate(demo: Demo, show: Show) -> str:
    from medgen3d.recipes.evaluate import NO_SEGMENTER, plan_evaluation, run_evaluation

    planned = plan_evaluation(demo.prepared, demo.pairs, demo.report, demo.config, segmenter=NO_SEGMENTER)
    run_evaluation(planned, demo.config, show)
    return "one page"


STEPS: dict[str, Callable[[Demo, Show], str]] = {
    "built-in pipeline": _builtin,
    "phantoms": _phantoms,
    "ingest": _ingest,
    "train": _train,
    "pipeline": _pipeline,
    "synthesize": _synthesize,
    "evaluate": _evaluate,
}


def _remove_unfinished(folder: Path) -> None:
    """Phantoms without `dataset.json` are left from a run that was stopped; the folder is the demo's own."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
