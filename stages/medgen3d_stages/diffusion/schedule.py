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


def even_steps(first: int, count: int) -> list[int]:
    """`count` different steps from `first` downwards, evenly spaced, so that one more would be the clean sample.

    So few predictions, or none, are spent where next to no noise is left. The last one is a mean over what is possible:
    right for labels, of which the likeliest is taken, and too smooth for images.
    """
    if not 1 <= count <= first + 1:
        raise ValueError(f"between 1 and {first + 1} steps can be visited from step {first}, got {count}")
    return [first - (first + 1) * index // count for index in range(count)]


def even_log_snr_steps(first: int, last: int, count: int, signal_kept: Tensor) -> list[int]:
    """`count` different steps from `first` down to `last`, evenly spaced in the logarithm of the signal-to-noise ratio.

    They lie the closer the less noise is left, since that is where an image gets its texture. The first is `first`, and
    the last one `last` if there are at least two.

    Source: Lu et al. 2022, section 4.1 (arXiv:2206.00927).
    """
    if last > first:
        raise ValueError(f"the last step must not be noisier than the first, {first}, got {last}")
    if not 1 <= count <= first - last + 1:
        raise ValueError(f"between 1 and {first - last + 1} steps lie from step {first} to step {last}, got {count}")
    log_snr = torch.logit(signal_kept.double())
    wanted = torch.linspace(float(log_snr[first]), float(log_snr[last]), count, dtype=torch.float64)
    steps = [first]
    for place, value in enumerate(wanted[1:], start=1):
        nearest = int((log_snr - value).abs().argmin())
        steps.append(max(min(nearest, steps[-1] - 1), last + count - 1 - place))
    return steps
