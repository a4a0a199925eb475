"""The mask generator as a stage: see medgen3d_stages.contract."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from medgen3d_stages.arrays import Batch, Example, Image, Mask, Networks
from medgen3d_stages.contract import DataSpec
from medgen3d_stages.diffusion.schedule import cosine_signal_kept
from medgen3d_stages.layers.attention import check_attention
from medgen3d_stages.layers.label_code import LabelHead
from medgen3d_stages.mask_generator.config import MaskGeneratorConfig
from medgen3d_stages.mask_generator.network import MaskDenoiser
from medgen3d_stages.mask_generator.objective import cut_window, denoising_loss
from medgen3d_stages.mask_generator.sampler import MaskRequest, MaskRun, advance_masks, draw_masks


class MaskGenerator:
    """MC-DPM: multi-condition diffusion over sub-sequences of mask slices (Han et al. 2023, arXiv:2304.04106)."""

    name: ClassVar[str] = "mask_generator"
    turns: ClassVar[dict[str, tuple[str, ...]]] = {"denoiser": ("denoiser",)}
    sampled: ClassVar[tuple[str, ...]] = ("denoiser",)

    def __init__(self, config: MaskGeneratorConfig, spec: DataSpec) -> None:
        check_attention(self.name, config.attention_levels, config.patch, [spec.plane])
        self.config, self.spec = config, spec
        self.signal_kept = cosine_signal_kept(config.diffusion_steps)

    def build(self) -> Networks:
        return {"denoiser": MaskDenoiser(self.config, self.spec.num_labels)}

    def cut(self, example: Example, rng: np.random.Generator) -> Batch:
        return cut_window(example, self.config, self.spec, rng)

    def loss(
        self, turn: str, networks: Networks, batch: Batch, rng: torch.Generator, progress: float
    ) -> dict[str, Tensor]:
        return denoising_loss(networks["denoiser"], batch, self.config, self.signal_kept, rng)  # type: ignore[arg-type]

    def sample(self, networks: Networks, inputs: list[MaskRequest], generators: list[torch.Generator]) -> list[Mask]:
        """Integer masks [D, height, width] of the requested shapes, labels 0..K-1."""
        return draw_masks(networks["denoiser"], inputs, generators, self.config, self.spec, self.signal_kept)  # type: ignore[arg-type]

    def begin(self, networks: Networks, item: MaskRequest, generator: torch.Generator) -> MaskRun:
        head: LabelHead = networks["denoiser"].labels  # type: ignore[assignment]
        return MaskRun(item, generator, self.config, self.spec, self.signal_kept, head)

    def advance(self, networks: Networks, runs: Sequence[MaskRun], width: int | None = None) -> None:
        """One denoising step of every run; `width` counts windows."""
        advance_masks(networks["denoiser"], runs, self.config, self.signal_kept, width)  # type: ignore[arg-type]

    def preview(self, networks: Networks, example: Example, generator: torch.Generator) -> tuple[Image, Mask]:
        """A mask of the real volume's size, over grey."""
        _, real = example.cropped()
        mask = self.sample(networks, [MaskRequest(shape=real.shape)], [generator])[0]
        return np.zeros(mask.shape, dtype=np.float32), mask
