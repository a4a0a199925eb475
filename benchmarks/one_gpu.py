"""Parts of the main job without Ray and MLflow, each as a command of its own: for a GPU machine that has neither.

Loop, networks, files and metrics are the product's own; only what spreads them over machines is left out.

    python benchmarks/one_gpu.py train --data prepared --stage refiner --out generator --set training.refiner.steps=8000
    python benchmarks/one_gpu.py draw --bundles generator --count 40 --out pairs
    python benchmarks/one_gpu.py trial --data prepared --pairs pairs --size 10 --arm real+synthetic --out trials
    python benchmarks/one_gpu.py evaluate --real prepared --synthetic pairs --judge judge --out report
"""

import argparse
import dataclasses
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from medgen3d.artifacts.bundle import BundleDataset, BundleInfo, read_bundle, write_bundle
from medgen3d.artifacts.goals import default_goals
from medgen3d.artifacts.pipeline import Pipeline
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.provenance import Provenance, config_hash
from medgen3d.artifacts.subset import nested_order, write_subset
from medgen3d.artifacts.synthetic_set import merge_parts, open_for_writing
from medgen3d.config.experiment import CHAIN, ExperimentConfig
from medgen3d.config.load import load_config, named_options
from medgen3d.evaluation.case_measurements import Instruments
from medgen3d.evaluation.judge import judge_of
from medgen3d.evaluation.sets import open_sets
from medgen3d.evaluation.suite import evaluate
from medgen3d.recipes.usefulness_study.trial import TrialSpec, run_trial
from medgen3d.synthesis.drawing import advance
from medgen3d.synthesis.given_masks import with_masks
from medgen3d.synthesis.run import open_run
from medgen3d.synthesis.run_options import RunOptions
from medgen3d.synthesis.set_writer import write_batch
from medgen3d.training.batches import ExampleSet, StepSampler, batches
from medgen3d.training.loop import Losses, train
from medgen3d.training.previews import preview_png
from medgen3d.training.stage_factory import stage_for
from medgen3d.training.state import TrainingState

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    """Do one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--out", type=Path, required=True)
    common.add_argument("--set", action="append", default=[])
    common.add_argument("--threads", type=int, default=1)
    for name, part in PARTS.items():
        command = parts.add_parser(name, parents=[common], help=part.__doc__)
        for option, kind, default in OPTIONS[name]:
            command.add_argument(f"--{option}", type=kind, default=default, required=default is REQUIRED)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    since = time.monotonic()
    PARTS[options.part](options, load_config(None, [], options.set))
    print(f"{options.part} {options.out}: {time.monotonic() - since:.0f} s", flush=True)


def train_one(options: argparse.Namespace, config: ExperimentConfig) -> None:
    """Train one stage, on all training cases or on the first --size of them."""
    prepared = PreparedSet(options.data.absolute())
    if options.size:
        chosen = nested_order(prepared.info, config.seed)[: options.size]
        prepared = write_subset(prepared, options.out / f"prepared.{options.stage}", chosen)
    stage = stage_for(options.stage, config, prepared)
    settings = getattr(config.training, options.stage)
    state = TrainingState(stage, settings, config.seed, DEVICE)
    loader = batches(
        ExampleSet.of(prepared, stage, config.seed, settings),
        StepSampler(0, settings.steps, settings.batch_size, 0, 1),
        settings.loader_workers,
    )
    train(stage, state, loader, settings, seed=config.seed, device=DEVICE, after_step=_told(options.out, options.stage))
    info = BundleInfo(
        stage=options.stage,
        stage_config=dataclasses.asdict(getattr(config, options.stage)),
        spec=dataclasses.asdict(stage.spec),
        dataset=BundleDataset.of(prepared),
    )
    provenance = Provenance(
        dataset_name=prepared.info.name,
        dataset_digest=prepared.digest,
        config_hash=config_hash(config.model_dump(mode="json")),
        seed=config.seed,
    )
    picture = preview_png(stage, state, prepared, config.seed)
    write_bundle(options.out / options.stage, info, state.bundle_weights(), provenance, picture)


def _told(out: Path, stage: str) -> Callable[[TrainingState, Losses], bool]:
    """Writes the mean of each loss, and seconds per step, every 100 steps."""
    out.mkdir(parents=True, exist_ok=True)
    sums: Losses = {}
    since = time.monotonic()

    def tell(state: TrainingState, losses: Losses) -> bool:
        nonlocal sums, since
        sums = {name: sums.get(name, 0.0) + value / 100 for name, value in losses.items()}
        if state.step % 100 == 0:
            line = {"step": state.step, "s_per_step": (time.monotonic() - since) / 100} | sums
            with (out / f"{stage}.jsonl").open("a") as file:
                file.write(json.dumps({name: float(f"{value:.4g}") for name, value in line.items()}) + "\n")
            sums, since = {}, time.monotonic()
        return True

    return tell


def draw(options: argparse.Namespace, config: ExperimentConfig) -> None:
    """Draw pairs with trained stages, as `medgen3d synthesize` does."""
    settings = config.synthesis.model_copy(update={"use_gpu": DEVICE.type == "cuda"})
    run = open_run(
        Pipeline.of_bundles(options.name, 1, {stage: options.bundles / stage for stage in CHAIN}),
        options.count,
        options.seed,
        options.out,
        settings,
        RunOptions(sampling=named_options(None, [], options.set), masks=options.masks),
    )
    open_for_writing(run.folder.location, run.info)
    trained = {stage: run.bundles[stage].trained_stage(DEVICE.type) for stage in run.stages}
    for key, spec in enumerate(run.ledger.next_batches(options.count)):
        batch = run.in_flight(key, spec)
        cases = with_masks(batch.cases, run.given, run.dataset)
        for stage in run.stages:
            cases = advance(stage, trained[stage], cases, run.dataset)
        failures = [case.failure for case in cases if case.failure]
        if failures:
            raise SystemExit(failures[0])
        write_batch(dataclasses.replace(batch, cases=cases), run.dataset, run.info, run.folder.location, max_redraws=0)
    merge_parts(run.folder.location)


def trial(options: argparse.Namespace, config: ExperimentConfig) -> None:
    """Train and test one segmenter of a usefulness study; the result is OUT/ARM-SIZE-SEED.json."""
    prepared = PreparedSet(options.data.absolute())
    order = nested_order(prepared.info, config.seed)
    spec = TrialSpec(
        arm=options.arm,
        case_ids=tuple(order[: options.size or len(order)]),
        data=options.data.absolute(),
        pairs=(options.pairs or Path()).absolute(),
        num_pairs=options.count,
        seed=options.seed,
        config=config,
    )
    found = run_trial(spec, DEVICE, lambda: None)
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"{options.arm}-{found.num_cases:03d}-{options.seed}.json"
    (options.out / name).write_text(found.model_dump_json())
    print(f"{name} {found.mean_dice:.4f}", flush=True)


def evaluate_pairs(options: argparse.Namespace, _config: ExperimentConfig) -> None:
    """Write the report of `medgen3d evaluate`, without usefulness."""
    stages = {}
    if options.bundles:
        stages = {stage: read_bundle(options.bundles / stage).trained_stage() for stage in CHAIN}
    judge = judge_of(read_bundle(options.judge), "segmenter")
    instruments = Instruments(judge=judge, stages=stages)

    def spread(_what: str, function: Callable[[Any], Any], items: Sequence[Any], /) -> list[Any]:
        _at_work.append(function)  # forked workers find it there: it holds networks and what no pickle takes
        with ProcessPoolExecutor(options.workers, multiprocessing.get_context("fork")) as pool:
            return list(pool.map(_apply, items))

    sets = open_sets(options.real, options.synthetic)
    if options.without_novelty:
        sets = dataclasses.replace(sets, train=None)
    report = evaluate(sets, instruments, default_goals(), options.out, spread)
    for verdict in report.verdicts:
        print(f"{options.out.name} {verdict.metric} {verdict.value} floor {verdict.floor} passed {verdict.passed}")


_at_work: list[Callable[[Any], Any]] = []


def _apply(item: Any) -> Any:
    torch.set_num_threads(1)
    return _at_work[-1](item)


REQUIRED = object()
PARTS: dict[str, Callable[[argparse.Namespace, ExperimentConfig], None]] = {
    "train": train_one,
    "draw": draw,
    "trial": trial,
    "evaluate": evaluate_pairs,
}
OPTIONS: dict[str, list[tuple[str, Any, Any]]] = {
    "train": [("data", Path, REQUIRED), ("stage", str, REQUIRED), ("size", int, None)],
    "draw": [
        ("bundles", Path, REQUIRED),
        ("count", int, REQUIRED),
        ("seed", int, 1),
        ("masks", Path, None),
        ("name", str, "generator"),
    ],
    "trial": [
        ("data", Path, REQUIRED),
        ("arm", str, REQUIRED),
        ("size", int, None),
        ("pairs", Path, None),
        ("count", int, 140),
        ("seed", int, 0),
    ],
    "evaluate": [
        ("real", Path, REQUIRED),
        ("synthetic", Path, REQUIRED),
        ("judge", Path, REQUIRED),
        ("bundles", Path, None),
        ("workers", int, 2),
        ("without-novelty", bool, False),
    ],
}


if __name__ == "__main__":
    main()
