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


def visited_steps(first: int, count: int) -> list[int]:
    """`count` different steps from `first` downwards, evenly spaced; the last one is 0 when `count` > 1."""
    if not 1 <= count <= first + 1:
        raise ValueError(f"between 1 and {first + 1} steps can be visited from step {first}, got {count}")
    gaps = max(count - 1, 1)
    return [first - (first * index) // gaps for index in range(count)]
