"""From noise to a clean sample: ancestral DDPM, DDIM and DPM-Solver++(2M), all from predictions of the clean sample."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from medgen3d_stages.arrays import normal

PredictClean = Callable[[Tensor, int], Tensor]
"""(noisy [B, ...], step) -> predicted clean sample, same shape."""


def denoise(
    noisy: Tensor,
    steps: Sequence[int],
    signal_kept: Tensor,
    predict_clean: PredictClean,
    sampler: Literal["ddpm", "ddim", "dpm++"],
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Walk from the first visited step to the clean sample.

    Args:
        noisy: [B, ...] at step `steps[0]`.
        steps: Visited steps, falling; after the last one the prediction is the result.
        signal_kept: [T], alpha-bar.
        predict_clean: The trained denoiser.
        sampler: Which solver; "ddpm" draws fresh noise at each step, the other two are deterministic.
        generators: One CPU stream per item, for "ddpm".

    Returns:
        [B, ...], the last prediction of the clean sample.
    """
    previous: tuple[Tensor, float] | None = None
    for step, following in itertools.pairwise(steps):
        clean = predict_clean(noisy, step)
        kept, kept_next = float(signal_kept[step]), float(signal_kept[following])
        if sampler == "ddpm":
            noisy = ddpm_step(noisy, clean, kept, kept_next, normal(noisy.shape[1:], generators, noisy.device))
        elif sampler == "ddim":
            noisy = ddim_step(noisy, clean, kept, kept_next)
        else:
            # The last step is by far the longest in lambda; extrapolated across it, samples spread too far.
            noisy = dpm_step(noisy, clean, kept, kept_next, None if following == steps[-1] else previous)
            previous = clean, half_log_snr(kept)
    return predict_clean(noisy, steps[-1])


def ddpm_step(noisy: Tensor, clean: Tensor, kept: float, kept_next: float, noise: Tensor) -> Tensor:
    """One draw from the posterior of the less noisy sample. Source: Ho et al. 2020, eqs. 6-7."""
    step_kept = kept / kept_next
    to_clean = math.sqrt(kept_next) * (1 - step_kept) / (1 - kept)
    to_noisy = math.sqrt(step_kept) * (1 - kept_next) / (1 - kept)
    spread = math.sqrt((1 - kept_next) / (1 - kept) * (1 - step_kept))
    return to_clean * clean + to_noisy * noisy + spread * noise


def ddim_step(noisy: Tensor, clean: Tensor, kept: float, kept_next: float) -> Tensor:
    """One deterministic step. Source: Song et al. 2021, eq. 12 with sigma = 0 (arXiv:2010.02502)."""
    noise = (noisy - math.sqrt(kept) * clean) / math.sqrt(1 - kept)
    return math.sqrt(kept_next) * clean + math.sqrt(1 - kept_next) * noise


def half_log_snr(kept: float) -> float:
    """Lambda = log(alpha / sigma), the time in which DPM-Solver is linear."""
    return 0.5 * math.log(kept / (1 - kept))


def dpm_step(
    noisy: Tensor, clean: Tensor, kept: float, kept_next: float, previous: tuple[Tensor, float] | None
) -> Tensor:
    """One step of DPM-Solver++(2M); `previous` is the last step's (prediction, lambda), None at the first step.

    Source: Lu et al. 2022, algorithm 2 (arXiv:2211.01095).
    """
    now = half_log_snr(kept)
    length = half_log_snr(kept_next) - now
    if previous is not None and previous[1] < now:  # a long schedule begins with steps of length 0
        earlier, earlier_time = previous
        weight = length / (2 * (now - earlier_time))
        clean = (1 + weight) * clean - weight * earlier
    shrink = math.sqrt((1 - kept_next) / (1 - kept))
    return shrink * noisy - math.sqrt(kept_next) * math.expm1(-length) * clean
