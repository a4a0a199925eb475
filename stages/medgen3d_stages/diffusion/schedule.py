"""The noise schedule: the signal left at each diffusion step, and the steps that a sampler visits."""

import math

import torch
from torch import Tensor


def cosine_signal_kept(steps: int) -> Tensor:
    """Share of signal variance left at each step (alpha-bar), float32 [steps], falling from nearly 1 to nearly 0.

    Source: Nichol and Dhariwal 2021, eq. 17 (arXiv:2102.09672). Values stay 1e-5 away from 0 and 1, so that the
    signal-to-noise ratio is finite everywhere, as DPM-Solver needs.
    """
    offset = 0.008
    time = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    kept = torch.cos((time + offset) / (1 + offset) * (math.pi / 2)) ** 2
    return (kept / math.cos(offset / (1 + offset) * (math.pi / 2)) ** 2).clamp(1e-5, 1 - 1e-5).float()


def visited_steps(first: int, count: int, *, down_to_0: bool = True) -> list[int]:
    """`count` different steps from `first` downwards, evenly spaced.

    Args:
        first: The noisiest.
        count: How many.
        down_to_0: The last one is 0 when `count` > 1, where next to no noise is left. False: one more would have been
            the clean sample. Then no prediction is spent where there is hardly anything to predict, but the last one is
            a mean over what is possible: right for labels, of which the likeliest is taken, and blurred for images.
    """
    if not 1 <= count <= first + 1:
        raise ValueError(f"between 1 and {first + 1} steps can be visited from step {first}, got {count}")
    if down_to_0:
        return [first - (first * index) // max(count - 1, 1) for index in range(count)]
    return [first - (first + 1) * index // count for index in range(count)]
