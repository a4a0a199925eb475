"""Segmentation and description of volumes, in windows of the size that the network was trained on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgen3d_stages.arrays import Mask
from medgen3d_stages.layers.padding import multiple_of, reflected
from medgen3d_stages.monai_parts import SegResNet, sliding_window_inference
from medgen3d_stages.segmenter.config import SegmenterConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentRequest:
    """A volume to segment. image: float [D, h, w] in [-1, 1]."""

    image: NDArray[np.floating]

    def check(self) -> None:
        """Raise ValueError, with a sentence, for what cannot be segmented."""
        if self.image.ndim != 3 or not self.image.size:
            raise ValueError(f"the image must be [D, h, w] and not empty, got {self.image.shape}")
        if not np.isfinite(self.image).all():
            raise ValueError("the image holds NaN or infinite intensities")


@torch.no_grad()
def segment_volumes(network: SegResNet, requests: Sequence[SegmentRequest], config: SegmenterConfig) -> list[Mask]:
    """Masks uint16 [D, h, w] of contiguous ids, one volume after the other."""
    masks: list[Mask] = []
    for request in requests:
        request.check()
        logits = _in_windows(network, request.image, config, network)
        depth, height, width = request.image.shape
        labels = logits[0, :, :depth, :height, :width].argmax(dim=0)
        masks.append(labels.cpu().numpy().astype(np.uint16))
    return masks


@torch.no_grad()
def encoder_features(network: SegResNet, image: NDArray[np.floating], config: SegmenterConfig) -> NDArray[np.float32]:
    """The encoder's coarsest feature map, float32 [C, d, h', w'], each place 2 ** (levels - 1) voxels wide."""
    SegmentRequest(image=image).check()
    features = _in_windows(network, image, config, lambda window: network.encode(window)[0])
    factor = 2 ** (len(config.num_res_blocks) - 1)
    depth, height, width = (-(-side // factor) for side in image.shape)
    return features[0, :, :depth, :height, :width].float().cpu().numpy()


def _in_windows(
    network: SegResNet, image: NDArray[np.floating], config: SegmenterConfig, apply: Callable[[Tensor], Tensor]
) -> Tensor:
    """`apply` over the volume [1, 1, D, h, w], reflected up to whole windows; neighbouring windows are blended."""
    device = next(network.parameters()).device
    factor = 2 ** (len(config.num_res_blocks) - 1)
    volume = torch.from_numpy(image.astype(np.float32)).to(device)
    for axis, (side, least) in enumerate(zip(image.shape, config.patch, strict=True)):
        volume = volume.index_select(axis, reflected(side, max(least, multiple_of(side, factor))).to(device))
    return sliding_window_inference(volume[None, None], config.patch, 1, apply, overlap=config.overlap, mode="gaussian")
