"""Ways to give labels to the mask generator, on label maps of one's own: how well it denoises, and what a step costs.

    python benchmarks/label_codes.py FOLDER [--side 64] [--steps 400] [--ways one-hot sphere bits]

FOLDER holds label maps as NIfTI; a quarter of them is held back, and all are thinned to about `side` voxels a side. One
network per way learns from the same windows. Then it denoises windows of the maps held back, without known slices, from
four noise levels: the share of voxels that are not background and get a wrong label, and the mean Dice of the labels.

one-hot: a plane per label. sphere: points in 8 planes as far apart as they can be, as in medgen3d. bits: the number of
the label in binary, a plane per bit (analog bits, Chen et al. 2022, arXiv:2208.04202), with the same learnt logits.
"""

import argparse
import math
import time
from pathlib import Path
from unittest.mock import patch

import nibabel as nib
import numpy as np
import torch

from medgen3d.config.training import StageTraining
from medgen3d.training.loop import train
from medgen3d.training.state import TrainingState
from medgen3d_stages.arrays import Batch, Example
from medgen3d_stages.contract import DataSpec
from medgen3d_stages.diffusion.process import add_noise
from medgen3d_stages.layers import label_code
from medgen3d_stages.mask_generator.config import MaskGeneratorConfig
from medgen3d_stages.mask_generator.stage import MaskGenerator

CPU = torch.device("cpu")
LEVELS = (0.3, 0.5, 0.7, 0.9)


def read_maps(folder: Path, side: int) -> tuple[list[Example], int]:
    """Label maps as examples with contiguous ids, in the order of their names, and how many labels there are."""
    volumes = []
    for path in sorted([*folder.glob("*.nii"), *folder.glob("*.nii.gz")]):
        voxels = np.asarray(nib.load(path).dataobj).T
        thin = [max(round(length / side), 1) for length in voxels.shape]
        volumes.append(voxels[:: thin[0], :: thin[1], :: thin[2]])
    ids = np.unique(np.concatenate([np.unique(volume) for volume in volumes]))
    plane = [-(-max(volume.shape[axis] for volume in volumes) // 8) * 8 for axis in (1, 2)]
    examples = []
    for volume in volumes:
        mask = np.zeros((len(volume), *plane), np.uint8)
        height, width = volume.shape[1:]
        mask[:, :height, :width] = np.searchsorted(ids, volume)
        examples.append(Example(image=np.zeros(mask.shape, np.float32), mask=mask, box=(0, height, 0, width)))
    return examples, len(ids)


def bits(num_labels: int) -> torch.Tensor:
    """The numbers of the labels in binary, {-1, +1}."""
    places = torch.arange(math.ceil(math.log2(num_labels)))
    return 2.0 * (torch.arange(num_labels)[:, None] >> places & 1) - 1


def use(way: str, num_labels: int) -> list:
    """What is to be patched for a way."""
    where = "medgen3d_stages.layers.label_code"
    if way == "one-hot":
        return [patch(f"{where}.PLANES", max(num_labels, label_code.PLANES))]
    if way == "bits":
        codes = bits(num_labels)
        return [patch(f"{where}.spread_codes", lambda _: codes), patch(f"{where}.num_planes", lambda _: codes.shape[1])]
    return []


def batch_of(stage: MaskGenerator, examples: list[Example], count: int, rng: np.random.Generator) -> Batch:
    """Windows of examples drawn at random."""
    cut = [stage.cut(examples[int(rng.integers(len(examples)))], rng) for _ in range(count)]
    return {name: torch.stack([part[name] for part in cut]) for name in cut[0]}


@torch.no_grad()
def judged(stage: MaskGenerator, network: torch.nn.Module, batch: Batch) -> list[tuple[float, float]]:
    """(share of wrong voxels, mean Dice) at each noise level."""
    mask, valid = batch["mask"].long(), batch["valid"][:, None].float()
    clean, nothing = network.labels.encode(mask), torch.zeros_like(valid)
    found = []
    for level in LEVELS:
        step = torch.full((len(mask),), int(level * len(stage.signal_kept)))
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        noisy = valid * add_noise(clean, noise, step, stage.signal_kept) + (1 - valid) * clean
        shown = (noisy, nothing * clean, nothing, valid, batch["position"], batch["depth"], step)
        _, labels = network.labels.decode(network(*shown))
        wrong = (labels != mask)[mask > 0].float().mean()
        dice = []
        for label in range(1, stage.spec.num_labels):
            one, two = labels == label, mask == label
            if two.any():
                dice.append(float(2 * (one & two).sum() / (one.sum() + two.sum())))
        found.append((float(wrong), float(np.mean(dice))))
    return found


def main() -> None:
    """Print a row per way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--ways", nargs="+", default=["one-hot", "sphere", "bits"])
    parser.add_argument("--planes", type=int, help="planes of `sphere`, if not what medgen3d takes")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    examples, num_labels = read_maps(chosen.folder, chosen.side)
    held = examples[::4]
    seen = [example for number, example in enumerate(examples) if number % 4]
    plane = seen[0].mask.shape[1:]
    depth = max(len(example.mask) for example in examples)
    spec = DataSpec(num_labels=num_labels, plane=plane, spacing_mm=(1, 1, 1), max_depth=depth)
    print(f"{len(seen)} maps and {len(held)} held back, {num_labels} labels, planes of {plane}", flush=True)
    print(
        "| way | million weights | CPU s per step | " + " | ".join(f"{each} T: wrong, Dice" for each in LEVELS) + " |"
    )
    for way in chosen.ways:
        patches = use(way, num_labels)
        if way == "sphere" and chosen.planes:
            patches = [patch("medgen3d_stages.layers.label_code.PLANES", chosen.planes)]
        for each in patches:
            each.start()
        stage = MaskGenerator(MaskGeneratorConfig(), spec)
        settings = StageTraining(steps=chosen.steps, batch_size=chosen.batch, ema_decay=0.99, learning_rate=1e-3)
        state, rng = TrainingState(stage, settings, 0, CPU), np.random.default_rng(0)
        batches = (batch_of(stage, seen, chosen.batch, rng) for _ in range(chosen.steps))
        began = time.process_time()
        train(stage, state, batches, settings, seed=0, device=CPU, after_step=lambda *_: True)
        spent = (time.process_time() - began) / chosen.steps
        network = state.sampling_networks()["denoiser"]
        weights = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        found = judged(stage, network, batch_of(stage, held, 24, np.random.default_rng(1)))
        figures = " | ".join(f"{100 * wrong:.1f} %, {dice:.3f}" for wrong, dice in found)
        print(f"| {way} | {weights:.2f} | {spent:.2f} | {figures} |", flush=True)
        for each in patches:
            each.stop()


if __name__ == "__main__":
    main()
