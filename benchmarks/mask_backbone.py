"""One training step of the mask generator: what folding pixels into channels and bfloat16 gain over MONAI's network.

Run: python benchmarks/mask_backbone.py [--threads 2] [--rounds 5]. All variants take turns in every round, so that a
busy machine slows them alike; the table gives medians and the ratio to the first row.
"""

import argparse
import dataclasses
import platform
import statistics
import time

import torch

from medgen3d_stages.contract import DataSpec
from medgen3d_stages.mask_generator.config import MaskGeneratorConfig
from medgen3d_stages.mask_generator.stage import MaskGenerator

SPEC = DataSpec(num_labels=3, plane=(64, 48), spacing_mm=(1.0, 1.0, 1.0), max_depth=47)
BASE = MaskGeneratorConfig()
VARIANTS = {
    "every pixel a position (patch 1), float32": (dataclasses.replace(BASE, patch=1, channels=(32, 64, 128)), False),
    "every pixel a position (patch 1), bfloat16": (dataclasses.replace(BASE, patch=1, channels=(32, 64, 128)), True),
    "2 x 2 pixels a position (patch 2), float32": (BASE, False),
    "2 x 2 pixels a position (patch 2), bfloat16": (BASE, True),
}


def step_seconds(config: MaskGeneratorConfig, bf16: bool, batch_size: int) -> tuple[float, float]:
    """(seconds of one forward and backward pass, million parameters)."""
    torch.manual_seed(0)
    stage = MaskGenerator(config, SPEC)
    networks = stage.build()
    window = (batch_size, config.window, *SPEC.plane)
    batch = {
        "mask": torch.randint(0, SPEC.num_labels, window),
        "valid": torch.ones(window, dtype=torch.bool),
        "known": torch.zeros(window[:2], dtype=torch.bool),
        "position": torch.rand(window[:2]),
        "depth": torch.rand(batch_size),
    }
    begin = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = stage.loss("denoiser", networks, batch, torch.Generator().manual_seed(0), 0.0)["total"]
    loss.backward()
    seconds = time.perf_counter() - begin
    return seconds, sum(weight.numel() for weight in networks["denoiser"].parameters()) / 1e6


def main() -> None:
    """Measure and print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    size: dict[str, float] = {}
    for round_number in range(arguments.rounds + 1):
        for name, (config, bf16) in VARIANTS.items():
            taken, size[name] = step_seconds(config, bf16, arguments.batch_size)
            if round_number:  # the first round warms up
                seconds[name].append(taken)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    first = next(iter(medians.values()))
    print(f"{platform.processor() or platform.machine()}, {arguments.threads} threads, torch {torch.__version__}")
    print("| variant | million parameters | seconds per step | speed-up |")
    print("| --- | --- | --- | --- |")
    for name, median in medians.items():
        print(f"| {name} | {size[name]:.1f} | {median:.2f} | {first / median:.1f} x |")


if __name__ == "__main__":
    main()
