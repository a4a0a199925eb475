"""The segmenter as a stage: see medgen3d_stages.contract."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from medgen3d_stages.arrays import Batch, Example, Image, Mask, Networks
from medgen3d_stages.contract import DataSpec
from medgen3d_stages.segmenter.config import SegmenterConfig
from medgen3d_stages.segmenter.network import segmentation_network
from medgen3d_stages.segmenter.objective import cut_patch, segmentation_loss
from medgen3d_stages.segmenter.sampler import SegmentRequest, segment_volumes


class Segmenter:
    """Image -> mask; no part of the chain, but the judge of what the chain makes."""

    name: ClassVar[str] = "segmenter"
    turns: ClassVar[dict[str, tuple[str, ...]]] = {"segmenter": ("segmenter",)}
    sampled: ClassVar[tuple[str, ...]] = ("segmenter",)

    def __init__(self, config: SegmenterConfig, spec: DataSpec) -> None:
        self.config, self.spec = config, spec

    def build(self) -> Networks:
        return {"segmenter": segmentation_network(self.config, self.spec.num_labels)}

    def cut(self, example: Example, rng: np.random.Generator) -> Batch:
        return cut_patch(example, self.config, self.spec.spacing_mm, rng)

    def loss(
        self, turn: str, networks: Networks, batch: Batch, rng: torch.Generator, progress: float
    ) -> dict[str, Tensor]:
        return segmentation_loss(networks["segmenter"], batch)

    def sample(self, networks: Networks, inputs: list[SegmentRequest], generators: list[torch.Generator]) -> list[Mask]:
        """Masks, uint16 [D, h, w] of contiguous ids. Nothing is drawn: the generators are not used."""
        return segment_volumes(networks["segmenter"], inputs, self.config)

    def preview(self, networks: Networks, example: Example, generator: torch.Generator) -> tuple[Image, Mask]:
        """The real image with the mask that is found in it."""
        image, _ = example.cropped()
        return image, self.sample(networks, [SegmentRequest(image=image)], [generator])[0]
