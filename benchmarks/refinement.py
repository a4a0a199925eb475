"""The worth of the refiner's options: one table and one plot, each row from the same masks and incoming images.

The images are drawn once for masks of the test split, then refined with each choice. Compared are slices with those of
the real cases (FID of the judge's encoder per view), the judge's Dice against the mask, and the intensity distance.

    medgen3d pipeline export hippocampus --out exported
    python benchmarks/refinement.py --bundles exported --real prepared --judge segmenter-bundle --out refinement
"""

import argparse
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.artifacts.examples import read_example
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.evaluation.agreement import compare_masks
from medgen3d.evaluation.extractors import JudgeExtractor
from medgen3d.evaluation.feature_distances import frechet_distance
from medgen3d.evaluation.fidelity import CaseFidelity, measure_fidelity
from medgen3d.evaluation.intensities import histogram_distance
from medgen3d.evaluation.judge import SegmenterJudge, judge_of
from medgen3d_stages.arrays import Image, Mask
from medgen3d_stages.catalogue import make_stage
from medgen3d_stages.chain import TrainedStage, draw_images, refine

CHOICES: dict[str, dict[str, object]] = {
    "as shipped": {},
    "start 0.5": {"start": 0.5},
    "start 0.7": {"start": 0.7},
    "5 steps": {"sampling_steps": 5},
    "20 steps": {"sampling_steps": 20},
    "50 steps": {"sampling_steps": 50},
    "guidance 1.5": {"guidance": 1.5},
    "guidance 2.5": {"guidance": 2.5},
    "fusion average": {"fusion": "average"},
    "fusion sequential": {"fusion": "sequential"},
}
VIEWS = ("axial", "coronal", "sagittal")


def main() -> None:
    """Print the table, write OUT/steps.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundles", type=Path, required=True, help="folder with a bundle per stage")
    parser.add_argument("--real", type=Path, required=True, help="the prepared set that the pipeline was trained on")
    parser.add_argument("--judge", type=Path, required=True, help="bundle of a segmenter trained on real pairs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=12, help="masks")
    parser.add_argument("--only", nargs="*", choices=CHOICES, default=list(CHOICES), help="choices; by default all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    prepared = PreparedSet(options.real)
    case_ids = prepared.info.case_ids("test")[: options.count]
    real = [read_example(prepared, case_id).cropped() for case_id in case_ids]
    masks = [mask for _, mask in real]
    judge = judge_of(read_bundle(options.judge), "judge")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator, refiner = (
        read_bundle(options.bundles / stage).trained_stage(device) for stage in ("image_sequence_generator", "refiner")
    )
    incoming = draw_images(generator, masks, range(len(masks)))
    measures = [measure_fidelity(image, [JudgeExtractor(judge)]) for image, _ in real]
    print(f"{len(masks)} masks\n\n| | {' | '.join(f'FID {view}' for view in VIEWS)} | Dice | intensity | s per case |")
    print("| --- |" + " ---: |" * 6)
    _row("real images", [image for image, _ in real], masks, measures, judge, 0.0)
    _row("not refined", incoming, masks, measures, judge, 0.0)
    steps: dict[int, dict[str, float]] = {}
    for name in options.only:
        changes = CHOICES[name]
        chosen = _with(refiner, changes)
        since = time.perf_counter()
        refined = refine(chosen, incoming, masks, range(len(masks)))
        distances = _row(name, refined, masks, measures, judge, (time.perf_counter() - since) / len(masks))
        if not changes or "sampling_steps" in changes:
            steps[int(changes.get("sampling_steps", 10))] = distances  # type: ignore[call-overload]
    options.out.mkdir(parents=True, exist_ok=True)
    _plot(options.out / "steps.png", dict(sorted(steps.items())))


def _with(trained: TrainedStage, changes: Mapping[str, object]) -> TrainedStage:
    config = dataclasses.replace(trained.stage.config, **changes)  # type: ignore[attr-defined]
    return TrainedStage(make_stage("refiner", config, trained.stage.spec), trained.networks)


def _row(
    name: str,
    images: Sequence[Image],
    masks: Sequence[Mask],
    real: Sequence[CaseFidelity],
    judge: SegmenterJudge,
    seconds: float,
) -> dict[str, float]:
    found = [measure_fidelity(image, [JudgeExtractor(judge)]) for image in images]
    fids = {
        view: frechet_distance(*([case.features[0][view] for case in cases] for cases in (real, found)))
        for view in VIEWS
    }
    intensity = histogram_distance(*([case.histogram for case in cases] for cases in (real, found)))
    spacing_mm = judge.trained.stage.spec.spacing_mm
    num_labels = judge.trained.stage.spec.num_labels
    dice = np.nanmean(
        [
            compare_masks(judge.segment(image), mask, num_labels, spacing_mm).dice
            for image, mask in zip(images, masks, strict=True)
        ]
    )
    cells = [*(f"{fid:.2f}" for fid in fids.values()), f"{dice:.3f}", f"{intensity:.3f}", f"{seconds:.1f}"]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return fids


def _plot(path: Path, steps: Mapping[int, Mapping[str, float]]) -> None:
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for view in VIEWS:
        axes.plot(list(steps), [fids[view] for fids in steps.values()], "o-", label=view)
    axes.set_xscale("log")
    axes.set_xticks(list(steps), map(str, steps))
    axes.minorticks_off()
    axes.set_xlabel("denoising steps of the refiner")
    axes.set_ylabel("FID of slices, judge's encoder")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
