"""The chain mask -> image sequence -> refined volume in pure torch; synthesis, serving and tests all use it.

Every function takes a batch of cases whose sizes may differ and one seed per case and stage; results carry no padding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from medgen3d_stages.arrays import Image, Mask, Networks
from medgen3d_stages.contract import SampleRun, Stage, SteppedStage
from medgen3d_stages.image_sequence_generator.sampler import ImageRequest
from medgen3d_stages.mask_generator.sampler import MaskRequest
from medgen3d_stages.precision import samples_in_bf16
from medgen3d_stages.refiner.sampler import RefineRequest

Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class TrainedStage:
    """A stage with its trained networks, which lie on one device."""

    stage: Stage
    networks: Networks

    def sample(self, inputs: list[Any], seeds: Sequence[int]) -> Any:
        """One sample per input, each from the stream of its own seed."""
        for network in self.networks.values():
            network.eval()
        with self._precision():
            return self.stage.sample(self.networks, inputs, [torch.Generator().manual_seed(seed) for seed in seeds])

    def begin(self, item: Any, seed: int) -> SampleRun:
        """A run of one input of a stage of the chain, which `advance` takes step by step.

        Raises:
            ValueError: With a sentence, for what the stage cannot draw.
        """
        for network in self.networks.values():
            network.eval()
        return self._stepped.begin(self.networks, item, torch.Generator().manual_seed(seed))

    def advance(self, runs: Sequence[SampleRun], width: int | None = None) -> None:
        """One step of every run, in device batches of `width` rows: see `medgen3d_stages.contract.SteppedStage`.

        On a CPU a batch of a given width has one row. Kernels there round by a row's place: SiLU, sigmoid and softmax
        treat the ends of a tensor otherwise than its middle, and products choose their loops by the number of rows.
        """
        if width is not None and self._device.type == "cpu":
            width = 1
        with self._precision():
            self._stepped.advance(self.networks, runs, width)

    @property
    def _device(self) -> torch.device:
        return next(tensor.device for network in self.networks.values() for tensor in network.parameters())

    def _precision(self) -> torch.autocast:
        device = self._device
        return torch.autocast(device.type, torch.bfloat16, enabled=samples_in_bf16(device))

    @property
    def _stepped(self) -> SteppedStage:
        return cast(SteppedStage, self.stage)  # the stages of the chain are


def draw_masks(
    trained: TrainedStage, shapes: Sequence[Shape], seeds: Sequence[int], given: Sequence[dict[int, Mask]] | None = None
) -> list[Mask]:
    """Masks [D, h, w] of contiguous ids.

    Args:
        trained: The mask generator.
        shapes: (D, h, w) of each case.
        seeds: One per case.
        given: Per case, slices that are known beforehand and kept exactly: index -> [h, w].
    """
    known = given or [{} for _ in shapes]
    requests = [MaskRequest(shape=shape, given=slices) for shape, slices in zip(shapes, known, strict=True)]
    masks: list[Mask] = trained.sample(requests, seeds)
    return masks


def draw_images(
    trained: TrainedStage, masks: Sequence[Mask], seeds: Sequence[int], style_seeds: Sequence[int | None] | None = None
) -> list[Image]:
    """Images [D, h, w] in [-1, 1] for masks.

    Args:
        trained: The image sequence generator.
        masks: One per case.
        seeds: One per case.
        style_seeds: Per case, what its appearance is drawn from; None: from the case's own seed.
    """
    styles = style_seeds or [None] * len(masks)
    requests = [ImageRequest(mask=mask, style_seed=style) for mask, style in zip(masks, styles, strict=True)]
    images: list[Image] = trained.sample(requests, seeds)
    return images


def refine(trained: TrainedStage, images: Sequence[Image], masks: Sequence[Mask], seeds: Sequence[int]) -> list[Image]:
    """Refined images [D, h, w] in [-1, 1]; the masks stay as they are."""
    requests = [RefineRequest(image=image, mask=mask) for image, mask in zip(images, masks, strict=True)]
    refined: list[Image] = trained.sample(requests, seeds)
    return refined


def draw_pairs(
    stages: Mapping[str, TrainedStage], shapes: Sequence[Shape], seeds: Mapping[str, Sequence[int]]
) -> list[tuple[Image, Mask]]:
    """The whole chain: (image, mask) per case. `stages` and `seeds` by stage name."""
    masks = draw_masks(stages["mask_generator"], shapes, seeds["mask_generator"])
    images = draw_images(stages["image_sequence_generator"], masks, seeds["image_sequence_generator"])
    return list(zip(refine(stages["refiner"], images, masks, seeds["refiner"]), masks, strict=True))
