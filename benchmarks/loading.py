"""How fast training examples come from disk: 32 made-up cases of 200 x 512 x 512 voxels, the preset `cluster`.

    python benchmarks/loading.py --folder FOLDER [--cases 32] [--size 200 512 512] [--rounds 3]

Noise is in the images, so that they compress as little as real ones, and 118 labels as nested shapes in the masks. Each
stage cuts examples in turn, in one process with one thread: CPU milliseconds per example after every case was read once
(the cold pass is told by itself), the examples per second that 8 CPUs make of it, and those that one H100 takes if its
step is the arithmetic that `medgen3d config show` counts at 40 % of 989 TFLOP/s (bfloat16).
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from medgen3d.artifacts.intensity import Intensity
from medgen3d.artifacts.prepared_set import (
    CaseEntry,
    DatasetInfo,
    PreparedCase,
    PreparedSet,
    write_info,
    write_prepared_case,
)
from medgen3d.config.experiment import CHAIN
from medgen3d.config.load import load_config
from medgen3d.config.training import Augmentation
from medgen3d.core.volume import Box
from medgen3d.recipes.cost import training_cost
from medgen3d.training.batches import ExampleSet
from medgen3d.training.stage_factory import stage_for

NUM_LABELS = 118
CPUS = 8
H100_TFLOPS = 0.4 * 989


def made_up(number: int, size: tuple[int, int, int]) -> PreparedCase:
    """Smooth shapes of many labels in noise, as compressible as a CT and its mask are."""
    rng = np.random.default_rng(number)
    z, y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in size)
    radius = np.sqrt((z[:, None, None] / 1.1) ** 2 + (y[:, None] / rng.uniform(0.7, 1)) ** 2 + x**2)
    angle = np.arctan2(y[:, None], x)[None] + 2 * z[:, None, None]
    shells = np.clip((1 - radius) * 10, 0, 8.99).astype(np.uint8)
    sectors = ((angle / (2 * np.pi) + 0.5) % 1 * 13).astype(np.uint8)
    mask = np.where(shells > 0, (shells - 1) * 13 + sectors + 1, 0).clip(0, NUM_LABELS - 1).astype(np.uint8)
    image = mask / NUM_LABELS - 0.5 + 0.05 * rng.standard_normal(size, np.float32)
    return PreparedCase(
        case_id=f"case_{number:03d}",
        split="train",
        image=image.clip(-1, 1).astype(np.float32),
        mask=mask,
        box=Box(top=0, bottom=size[1], left=0, right=size[2]),
        affine=np.eye(4),
        intensity=Intensity(low=-1000, high=1000),
    )


def make_set(root: Path, count: int, size: tuple[int, int, int]) -> PreparedSet:
    """Of so many cases; one that is there is opened as it is."""
    if not (root / "dataset.yaml").exists():
        for number in range(count):
            write_prepared_case(root, number, made_up(number, size))
        names = [f"case_{number:03d}" for number in range(count)]
        info = DatasetInfo(
            name="made_up",
            modality="CT",
            phantom=True,
            labels={0: "background"} | {label: f"label {label}" for label in range(1, NUM_LABELS)},
            spacing_mm=(1.0, 0.8, 0.8),
            plane=size[1:],
            intensity={"kind": "hu_window", "low": -1000, "high": 1000},
            inverse=Intensity(low=-1000, high=1000),
            seed=0,
            patients_known=True,
            cases=[
                CaseEntry(case_id=name, patient=name, split="train", shape=size, sources_sha256={}) for name in names
            ],
        )
        write_info(root, info)
    return PreparedSet(root)


def cpu_ms(examples: ExampleSet, numbers: range) -> list[float]:
    """CPU milliseconds of each of these examples."""
    spent = []
    for number in numbers:
        began = time.process_time()
        examples[number]
        spent.append(1000 * (time.process_time() - began))
    return spent


def main() -> None:
    """Print a row per stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the cases, about 60 MB each; kept")
    parser.add_argument("--cases", type=int, default=32)
    parser.add_argument("--size", type=int, nargs=3, default=(200, 512, 512))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bend-mm", type=float, default=0.0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    prepared, config = make_set(chosen.folder, chosen.cases, tuple(chosen.size)), load_config(presets=["cluster"])
    print("| stage | CPU ms per example | cold | examples/s, 8 CPUs | examples/s, one H100 | ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in CHAIN:
        examples = ExampleSet.of(prepared, stage_for(name, config, prepared), 0, Augmentation(bend_mm=chosen.bend_mm))
        cold = statistics.mean(cpu_ms(examples, range(chosen.cases)))
        rounds = [
            statistics.mean(cpu_ms(examples, range(turn * chosen.cases, (turn + 1) * chosen.cases)))
            for turn in range(1, chosen.rounds + 1)
        ]
        warm = statistics.median(rounds)
        step = training_cost(name, config, prepared.info.cases[0].shape, NUM_LABELS)
        taken = getattr(config.training, name).batch_size * H100_TFLOPS / step.tflop
        given = CPUS * 1000 / warm
        print(f"| {name} | {warm:.1f} | {cold:.1f} | {given:.0f} | {taken:.0f} | {given / taken:.1f} |")


if __name__ == "__main__":
    main()
