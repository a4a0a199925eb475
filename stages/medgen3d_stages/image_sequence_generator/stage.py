"""The image sequence generator as a stage: see medgen3d_stages.contract."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from medgen3d_stages.arrays import Batch, Example, Image, Mask, Networks
from medgen3d_stages.contract import DataSpec
from medgen3d_stages.image_sequence_generator.config import ImageSequenceGeneratorConfig
from medgen3d_stages.image_sequence_generator.network import SEQUENCE, Discriminator, SliceGenerator, StyleEncoder
from medgen3d_stages.image_sequence_generator.objective import cut_window, discriminator_loss, generator_loss
from medgen3d_stages.image_sequence_generator.sampler import ImageRequest, ImageRun, advance_images, generate_images


class ImageSequenceGenerator:
    """A vid2vid-like conditional GAN along the slices (Han et al. 2023; Wang et al. 2018, arXiv:1808.06601)."""

    name: ClassVar[str] = "image_sequence_generator"
    turns: ClassVar[dict[str, tuple[str, ...]]] = {
        "discriminator": ("slice_discriminator", "sequence_discriminator"),
        "generator": ("generator", "style_encoder"),
    }
    sampled: ClassVar[tuple[str, ...]] = ("generator",)

    def __init__(self, config: ImageSequenceGeneratorConfig, spec: DataSpec) -> None:
        self.config, self.spec = config, spec

    def build(self) -> Networks:
        num_labels = self.spec.num_labels
        return {
            "generator": SliceGenerator(self.config, num_labels),
            "style_encoder": StyleEncoder(self.config),
            "slice_discriminator": Discriminator(self.config, num_labels, 1, self.config.num_scales),
            "sequence_discriminator": Discriminator(self.config, num_labels, SEQUENCE, 1),
        }

    def cut(self, example: Example, rng: np.random.Generator) -> Batch:
        return cut_window(example, self.config, rng)

    def loss(
        self, turn: str, networks: Networks, batch: Batch, rng: torch.Generator, progress: float
    ) -> dict[str, Tensor]:
        forced = progress <= self.config.teacher_forced_share
        objective = {"discriminator": discriminator_loss, "generator": generator_loss}[turn]
        return objective(networks, batch, self.config, rng, forced)

    def sample(self, networks: Networks, inputs: list[ImageRequest], generators: list[torch.Generator]) -> list[Image]:
        """Images float32 [D, h, w] in [-1, 1], one per mask."""
        return generate_images(networks, inputs, generators, self.config, self.spec)

    def begin(self, networks: Networks, item: ImageRequest, generator: torch.Generator) -> ImageRun:
        return ImageRun(item, generator, self.config, self.spec)

    def advance(self, networks: Networks, runs: Sequence[ImageRun], width: int | None = None) -> None:
        """The next slice of every run, in both directions; `width` counts slices."""
        advance_images(networks, runs, self.config, self.spec, width)

    def preview(self, networks: Networks, example: Example, generator: torch.Generator) -> tuple[Image, Mask]:
        """An image of random style for the real volume's mask."""
        _, mask = example.cropped()
        return self.sample(networks, [ImageRequest(mask=mask)], [generator])[0], mask
