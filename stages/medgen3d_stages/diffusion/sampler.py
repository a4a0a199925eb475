"""From noise to a clean sample: ancestral DDPM, DDIM and DPM-Solver++(2M), all from predictions of the clean sample."""

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
    walk = Denoising(noisy, steps, signal_kept, sampler, generators)
    while not walk.finished:
        walk.take(predict_clean(walk.noisy, walk.step))
    return walk.noisy


class Denoising:
    """Items on their way from noise to clean samples, which whoever predicts advances step by step.

    Args: those of `denoise`.

    noisy: [B, ...] at `step`; once finished, the last prediction.
    place: Steps that are done.
    """

    def __init__(
        self,
        noisy: Tensor,
        steps: Sequence[int],
        signal_kept: Tensor,
        sampler: Literal["ddpm", "ddim", "dpm++"],
        generators: Sequence[torch.Generator],
    ) -> None:
        self.noisy, self.place = noisy, 0
        self._steps, self._signal_kept, self._sampler, self._generators = steps, signal_kept, sampler, generators
        self._previous: tuple[Tensor, float] | None = None

    @property
    def step(self) -> int:
        """The diffusion step at which the items are."""
        return self._steps[self.place]

    @property
    def finished(self) -> bool:
        return self.place == len(self._steps)

    def take(self, clean: Tensor) -> None:
        """Go on to the next visited step, given the prediction of the clean items from `noisy` at `step`."""
        self.place += 1
        if self.finished:
            self.noisy = clean
            return
        noisy, steps = self.noisy, self._steps[self.place - 1 : self.place + 1]
        kept, kept_next = (float(self._signal_kept[step]) for step in steps)
        if self._sampler == "ddpm":
            noise = normal(noisy.shape[1:], self._generators, noisy.device)
            self.noisy = ddpm_step(noisy, clean, kept, kept_next, noise)
        elif self._sampler == "ddim":
            self.noisy = ddim_step(noisy, clean, kept, kept_next)
        else:
            self.noisy = dpm_step(noisy, clean, kept, kept_next, self._previous)
            self._previous = clean, half_log_snr(kept)


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
