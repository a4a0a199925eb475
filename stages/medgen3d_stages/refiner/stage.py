"""The refiner as a stage: see medgen3d_stages.contract."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from medgen3d_stages.arrays import Batch, Example, Image, Mask, Networks
from medgen3d_stages.contract import DataSpec
from medgen3d_stages.diffusion.schedule import cosine_signal_kept
from medgen3d_stages.layers.attention import check_attention
from medgen3d_stages.refiner.config import RefinerConfig
from medgen3d_stages.refiner.network import SliceDenoiser
from medgen3d_stages.refiner.objective import cut_slice, denoising_loss
from medgen3d_stages.refiner.sampler import RefineRequest, RefineRun, advance_volumes, refine_volumes


class Refiner:
    """Semantic 2D diffusion in three views (Han et al. 2023, arXiv:2304.04106; Wang et al. 2022, arXiv:2207.00050)."""

    name: ClassVar[str] = "refiner"
    turns: ClassVar[dict[str, tuple[str, ...]]] = {"denoiser": ("denoiser",)}
    sampled: ClassVar[tuple[str, ...]] = ("denoiser",)

    def __init__(self, config: RefinerConfig, spec: DataSpec) -> None:
        depth, (height, width) = spec.max_depth, spec.plane
        planes = [(height, width), (depth, width), (depth, height)]
        check_attention(self.name, config.attention_levels, config.patch, planes)
        self.config, self.spec = config, spec
        self.signal_kept = cosine_signal_kept(config.diffusion_steps)

    def build(self) -> Networks:
        return {"denoiser": SliceDenoiser(self.config, self.spec.num_labels)}

    def cut(self, example: Example, rng: np.random.Generator) -> Batch:
        return cut_slice(example, self.config, rng)

    def loss(
        self, turn: str, networks: Networks, batch: Batch, rng: torch.Generator, progress: float
    ) -> dict[str, Tensor]:
        return denoising_loss(networks["denoiser"], batch, self.config, self.signal_kept, rng)  # type: ignore[arg-type]

    def sample(self, networks: Networks, inputs: list[RefineRequest], generators: list[torch.Generator]) -> list[Image]:
        """Refined images, float32 [D, h, w] in [-1, 1]."""
        return refine_volumes(networks["denoiser"], inputs, generators, self.config, self.spec, self.signal_kept)  # type: ignore[arg-type]

    def begin(self, networks: Networks, item: RefineRequest, generator: torch.Generator) -> RefineRun:
        return RefineRun(item, generator, self.config, self.spec, self.signal_kept)

    def advance(self, networks: Networks, runs: Sequence[RefineRun], width: int | None = None) -> None:
        """One denoising step of every run. A volume's slices are its batches, so other runs never change them."""
        advance_volumes(networks["denoiser"], runs)  # type: ignore[arg-type]

    def preview(self, networks: Networks, example: Example, generator: torch.Generator) -> tuple[Image, Mask]:
        """The real volume, refined: what the texture becomes."""
        image, mask = example.cropped()
        # As many pixels at a time as a training example has, and without gradients: never more memory than a step.
        slices = max(self.config.crop**2 // (mask.shape[1] * mask.shape[2]), 1)
        config = dataclasses.replace(self.config, slice_batch=min(slices, self.config.slice_batch))
        request = RefineRequest(image=image, mask=mask)
        network: SliceDenoiser = networks["denoiser"]  # type: ignore[assignment]
        (refined,) = refine_volumes(network, [request], [generator], config, self.spec, self.signal_kept)
        return refined, mask
