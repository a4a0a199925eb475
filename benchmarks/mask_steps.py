"""Masks drawn in few steps against masks drawn in many: the mask generator alone, held to real masks never trained on.

    python benchmarks/mask_steps.py --bundle BUNDLE --real prepared [--count 60] [--steps 1 2 4 8 25]

Volumes and surface per volume are 1-Wasserstein distances in multiples of the floor between real cases, components are
differences of means; of each the worse label, with 95 % intervals. CPU seconds per mask on one thread, ten masks at a
time.
"""

import argparse
import dataclasses
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.report_parts import Metric
from medgen3d.core.seeds import stream_seed
from medgen3d.evaluation.plausibility import MaskMeasures, measure_mask, plausibility
from medgen3d_stages.arrays import Mask
from medgen3d_stages.chain import TrainedStage, draw_masks

COLUMNS = ("volume", "surface_to_volume", "components_difference")
AT_ONCE = 10


def drawn(trained: TrainedStage, shapes: list[tuple[int, int, int]], steps: int) -> tuple[list[Mask], float]:
    """Masks of these shapes, and CPU seconds per mask."""
    config = dataclasses.replace(trained.stage.config, sampling_steps=steps)
    stage = TrainedStage(type(trained.stage)(config, trained.stage.spec), trained.networks)
    began, masks = time.process_time(), []
    for first in range(0, len(shapes), AT_ONCE):
        part = shapes[first : first + AT_ONCE]
        masks += draw_masks(stage, part, [stream_seed(1, "case", first + place) for place in range(len(part))])
    return masks, (time.process_time() - began) / len(shapes)


def shown(metrics: list[Metric], column: str) -> str:
    """The worse label: its value in floors, or itself where it is a difference, and its interval alike."""
    found = [
        metric for metric in metrics if metric.name.startswith(f"plausibility.{column}.") and metric.value is not None
    ]
    scales = [1.0 if column.endswith("difference") else metric.floor or 1.0 for metric in found]
    worst = max(range(len(found)), key=lambda place: abs(found[place].value or 0) / scales[place])
    numbers = [found[worst].value, *(found[worst].interval or ())]
    value, low, high = (number / scales[worst] for number in numbers)  # type: ignore[operator]
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Print a row per number of steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="of a mask generator")
    parser.add_argument("--real", type=Path, required=True, help="the prepared set that it was trained on")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8, 25])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    trained, prepared = read_bundle(chosen.bundle).trained_stage(), PreparedSet(chosen.real)
    table, spacing = prepared.info.label_table, prepared.info.spacing_mm
    measure = partial(measure_mask, num_labels=len(table), spacing_mm=spacing)

    def inside(case_id: str) -> Mask:
        case = prepared.read(case_id)
        return case.mask[:, case.box.rows, case.box.columns]

    real: list[MaskMeasures] = [
        measure(inside(case_id)) for split in ("validation", "test") for case_id in prepared.info.case_ids(split)
    ]
    sizes = [case.shape for case in prepared.info.cases if case.split == "train"]
    shapes = [sizes[number % len(sizes)] for number in range(chosen.count)]
    print("| steps | volumes | surface per volume | components | CPU s |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for steps in chosen.steps:
        masks, seconds = drawn(trained, shapes, steps)
        found = plausibility(real, [measure(mask) for mask in masks], table, np.random.default_rng(0))
        cells = " | ".join(shown(found.section.metrics, column) for column in COLUMNS)
        print(f"| {steps} | {cells} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
