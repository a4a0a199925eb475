"""Refinement of volumes: noised part of the way, then denoised slice by slice in three views."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgen3d_stages.arrays import normal
from medgen3d_stages.contract import DataSpec
from medgen3d_stages.diffusion.process import add_noise, clean_from_velocity
from medgen3d_stages.diffusion.sampler import Denoising
from medgen3d_stages.diffusion.schedule import even_log_snr_steps
from medgen3d_stages.layers.label_code import NO_LABEL
from medgen3d_stages.layers.padding import padded_side, reflected
from medgen3d_stages.refiner.config import RefinerConfig
from medgen3d_stages.refiner.network import VIEWS, SliceDenoiser

ORDER = tuple(map(VIEWS.index, ("coronal", "axial", "sagittal")))
"""Views in the order of their turns. The noisiest step may change most, so it looks across the axial slices that stage
2 has drawn one after the other, where they disagree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineRequest:
    """A volume to refine. image: float [D, h, w] in [-1, 1]. mask: integer, same shape; it is never changed."""

    image: NDArray[np.floating]
    mask: NDArray[np.integer]

    def check(self, spec: DataSpec) -> None:
        """Raise ValueError, with a sentence, for what cannot be refined."""
        if self.image.ndim != 3 or self.image.shape != self.mask.shape:
            raise ValueError(
                f"image and mask must be [D, h, w] of one shape, got {self.image.shape} and {self.mask.shape}"
            )
        for label in (self.mask.min(), self.mask.max()):
            if not 0 <= label < spec.num_labels:
                raise ValueError(f"the mask holds label {label}; labels are 0 to {spec.num_labels - 1}")


class RefineRun:
    """A volume on its way through the views: see `medgen3d_stages.contract.SampleRun`. A unit of work is a step.

    A pass is a denoising from the first step to the clean volume.

    views: The view that each step looks along, of all passes.
    """

    def __init__(
        self,
        request: RefineRequest,
        generator: torch.Generator,
        config: RefinerConfig,
        spec: DataSpec,
        signal_kept: Tensor,
    ) -> None:
        request.check(spec)
        self._request, self._generator = request, generator
        self._config, self._signal_kept = config, signal_kept
        self._steps = even_log_snr_steps(config.first_step, config.last_step, config.sampling_steps, signal_kept)
        passes = [ORDER] if config.fusion == "alternate" else [(view,) for view in ORDER]
        self.views = [views[step % len(views)] for views in passes for step in range(len(self._steps))]
        self.total, self.done = len(self.views), 0
        self._refined: list[Tensor] = []
        self._denoising: Denoising | None = None

    @property
    def rows(self) -> int:
        return int(self.done < self.total)

    def advance(self, network: SliceDenoiser) -> None:
        """One denoising step of all slices of a view."""
        if not self.done:
            self._to_device(next(network.parameters()).device)
        if self._denoising is None:
            self._begin_pass()
        denoising, view = self._denoising, self.views[self.done]
        assert denoising is not None
        denoising.take(self.predict(network, denoising.noisy[0], self._mask, denoising.step, view)[None])
        self.done += 1
        if denoising.finished:
            self._refined.append(denoising.noisy[0].clamp(-1, 1))
            self._denoising = None

    def result(self) -> NDArray[np.float32]:
        """[D, h, w], fused as configured."""
        fused = torch.stack(self._refined).mean(dim=0) if self._config.fusion == "average" else self._refined[-1]
        return fused.cpu().numpy()

    def _to_device(self, device: torch.device) -> None:
        """Not before the first step: a volume that waits takes no memory of the device."""
        self._image = torch.from_numpy(self._request.image.astype(np.float32)).to(device)
        self._mask = torch.from_numpy(self._request.mask.astype(np.int32)).to(device)

    def _begin_pass(self) -> None:
        """Passes that are averaged share their noise; otherwise each begins with what the one before it left."""
        averaged = self._config.fusion == "average"
        image = self._refined[-1] if self._refined and not averaged else self._image
        if not self._refined or not averaged:
            # One white 3D field: it is white in every view, which is what the network was trained on.
            self._noise = normal(image.shape, [self._generator], image.device)[0]
        first = torch.tensor([self._steps[0]], device=image.device)
        noisy = add_noise(image[None], self._noise[None], first, self._signal_kept)
        self._denoising = Denoising(noisy, self._steps, self._signal_kept, "dpm++", [])

    def predict(self, network: SliceDenoiser, noisy: Tensor, mask: Tensor, step: int, view: int) -> Tensor:
        """The clean volume [D, h, w] as seen from one view, all its slices denoised independently."""
        clean = torch.empty_like(noisy)
        slices, masks, results = (volume.movedim(view, 0) for volume in (noisy, mask, clean))
        for first in range(0, len(slices), self._config.slice_batch):
            part = slice(first, first + self._config.slice_batch)
            results[part] = self.predict_slices(network, slices[part][:, None], masks[part], step, view)[:, 0]
        return clean

    def predict_slices(self, network: SliceDenoiser, slices: Tensor, masks: Tensor, step: int, view: int) -> Tensor:
        """Clean slices [B, 1, h, w] of noisy ones and their masks [B, h, w]."""
        height, width = slices.shape[-2:]
        rows, columns = (
            reflected(size, padded_side(size, network.plane_multiple)).to(slices.device) for size in (height, width)
        )
        padded, shown = slices[..., rows, :][..., columns], masks[:, rows][..., columns]
        steps = torch.full((len(slices),), step, device=slices.device)
        views = torch.full((len(slices),), view, device=slices.device)
        predicted = network(padded, shown, views, steps).float()
        if self._config.guidance != 1:
            free = network(padded, torch.full_like(shown, NO_LABEL), views, steps).float()
            predicted = free + self._config.guidance * (predicted - free)
        clean = clean_from_velocity(padded, predicted, steps, self._signal_kept)
        return clean[..., :height, :width].clamp(-1, 1)


@torch.no_grad()
def advance_volumes(network: SliceDenoiser, runs: Sequence[RefineRun]) -> None:
    """One denoising step of every volume. One after the other: a volume's slices already fill the device."""
    for run in runs:
        run.advance(network)


def refine_volumes(
    network: SliceDenoiser,
    requests: Sequence[RefineRequest],
    generators: Sequence[torch.Generator],
    config: RefinerConfig,
    spec: DataSpec,
    signal_kept: Tensor,
) -> list[NDArray[np.float32]]:
    """Refined volumes, each from beginning to end before the next one, so that one at a time takes memory."""
    refined = []
    for request, generator in zip(requests, generators, strict=True):
        run = RefineRun(request, generator, config, spec, signal_kept)
        while run.rows:
            advance_volumes(network, [run])
        refined.append(run.result())
    return refined
