"""How a volume is refined: noised part of the way, then denoised slice by slice in three views."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgen3d_stages.arrays import normal, one_hot
from medgen3d_stages.contract import DataSpec
from medgen3d_stages.diffusion.process import add_noise, clean_from_velocity
from medgen3d_stages.diffusion.sampler import denoise
from medgen3d_stages.diffusion.schedule import visited_steps
from medgen3d_stages.layers.padding import padded_side, reflected
from medgen3d_stages.refiner.config import RefinerConfig
from medgen3d_stages.refiner.network import VIEWS, SliceDenoiser


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


class Refinement:
    """One volume on its way through the views."""

    def __init__(
        self, network: SliceDenoiser, mask: Tensor, config: RefinerConfig, num_labels: int, signal_kept: Tensor
    ) -> None:
        self.network, self.config, self.signal_kept = network, config, signal_kept
        self.mask_one_hot = one_hot(mask[None], num_labels)[0]
        self.steps = visited_steps(round(config.start * config.diffusion_steps) - 1, config.sampling_steps)

    def run(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Refined [D, h, w] from the incoming [D, h, w], fused as configured."""
        if self.config.fusion == "sequential":
            for view in range(len(VIEWS)):
                image = self._denoise(image, self._noise_for(image, generator), [view])
            return image
        noise = self._noise_for(image, generator)
        if self.config.fusion == "average":
            return torch.stack([self._denoise(image, noise, [view]) for view in range(len(VIEWS))]).mean(dim=0)
        return self._denoise(image, noise, list(range(len(VIEWS))))

    def _noise_for(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """One white 3D field: it is white in every view, which is what the network was trained on."""
        return normal(image.shape, [generator], image.device)[0]

    def _denoise(self, image: Tensor, noise: Tensor, views: list[int]) -> Tensor:
        """Deterministic DDIM from the start step; step number i looks along views[i % len(views)]."""
        view_of = {step: views[place % len(views)] for place, step in enumerate(self.steps)}
        first = torch.tensor([self.steps[0]], device=image.device)
        noisy = add_noise(image[None], noise[None], first, self.signal_kept)
        final = denoise(
            noisy,
            self.steps,
            self.signal_kept,
            lambda x, step: self._predict(x[0], step, view_of[step])[None],
            "ddim",
            [],
        )
        return final[0].clamp(-1, 1)

    def _predict(self, noisy: Tensor, step: int, view: int) -> Tensor:
        """The clean volume as seen from one view, all its slices denoised independently."""
        slices, masks = noisy.movedim(view, 0)[:, None], self.mask_one_hot.movedim(view + 1, 0)
        clean = [
            self._predict_slices(part, hot, step, view)
            for part, hot in zip(
                slices.split(self.config.slice_batch), masks.split(self.config.slice_batch), strict=True
            )
        ]
        return torch.cat(clean)[:, 0].movedim(0, view)

    def _predict_slices(self, slices: Tensor, mask_one_hot: Tensor, step: int, view: int) -> Tensor:
        height, width = slices.shape[-2:]
        rows, columns = (
            reflected(size, padded_side(size, self.network.plane_multiple)).to(slices.device)
            for size in (height, width)
        )
        padded, hot = slices[..., rows, :][..., columns], mask_one_hot[..., rows, :][..., columns]
        steps = torch.full((len(slices),), step, device=slices.device)
        views = torch.full((len(slices),), view, device=slices.device)
        predicted = self.network(padded, hot, views, steps).float()
        if self.config.guidance != 1:
            free = self.network(padded, torch.zeros_like(hot), views, steps).float()
            predicted = free + self.config.guidance * (predicted - free)
        clean = clean_from_velocity(padded, predicted, steps, self.signal_kept)
        return clean[..., :height, :width].clamp(-1, 1)


@torch.no_grad()
def refine_volumes(
    network: SliceDenoiser,
    requests: Sequence[RefineRequest],
    generators: Sequence[torch.Generator],
    config: RefinerConfig,
    spec: DataSpec,
    signal_kept: Tensor,
) -> list[NDArray[np.float32]]:
    """Refined volumes. One after the other: a volume's slices already fill the device."""
    device = next(network.parameters()).device
    refined = []
    for request, generator in zip(requests, generators, strict=True):
        request.check(spec)
        image = torch.from_numpy(request.image.astype(np.float32)).to(device)
        mask = torch.from_numpy(request.mask.astype(np.int64)).to(device)
        refinement = Refinement(network, mask, config, spec.num_labels, signal_kept)
        refined.append(refinement.run(image, generator).cpu().numpy())
    return refined
