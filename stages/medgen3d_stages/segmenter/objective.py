"""Training of the segmenter: patches, and the loss on them."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from medgen3d_stages.arrays import Batch, Example
from medgen3d_stages.monai_parts import DiceCELoss
from medgen3d_stages.segmenter.config import SegmenterConfig


def cut_patch(
    example: Example, config: SegmenterConfig, spacing_mm: tuple[float, float, float], rng: np.random.Generator
) -> Batch:
    """A patch of the case, turned, scaled and changed in contrast; beyond the case's borders it is reflected.

    Returns:
        image: [1, *patch]. mask: int64 [1, *patch].
    """
    image, mask = example.cropped()
    matrix = _turned_and_scaled(config, spacing_mm, rng)
    middle = (np.array(config.patch) - 1) / 2
    offset = _centre(mask, config, rng) - matrix @ middle
    common = {"matrix": matrix, "offset": offset, "output_shape": config.patch, "mode": "mirror"}
    patch = ndimage.affine_transform(image.astype(np.float32), order=1, **common)
    labels = ndimage.affine_transform(mask.astype(np.int64), order=0, **common)
    contrast = 1 + config.intensity_jitter * rng.uniform(-1, 1)
    brightness = 0.5 * config.intensity_jitter * rng.uniform(-1, 1)
    return {
        "image": torch.from_numpy(contrast * patch + np.float32(brightness)).float()[None],
        "mask": torch.from_numpy(labels)[None],
    }


def segmentation_loss(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Soft Dice of the labels, without background, plus cross-entropy (Isensee et al. 2021, arXiv:1904.08128)."""
    logits = network(batch["image"]).float()
    loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    return {"total": loss(logits, batch["mask"])}


def _turned_and_scaled(
    config: SegmenterConfig, spacing_mm: tuple[float, float, float], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Patch voxels -> case voxels about the centre [3, 3]; a rotation in millimetres, whatever the spacing."""
    axis = rng.standard_normal(3)
    angle = np.deg2rad(config.rotation_degrees) * rng.uniform(-1, 1)
    turned = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()
    in_mm = np.diag(spacing_mm)
    return np.linalg.inv(in_mm) @ turned @ in_mm / (1 + config.zoom * rng.uniform(-1, 1))


def _centre(mask: NDArray[np.integer], config: SegmenterConfig, rng: np.random.Generator) -> NDArray[np.float64]:
    """Where in the case the patch's middle lies: as far inside as the patch allows, or the middle of a short axis."""
    labelled = np.argwhere(mask) if rng.random() < config.foreground_share else ()
    if len(labelled):
        wanted = labelled[rng.integers(len(labelled))].astype(np.float64)
    else:
        wanted = rng.uniform(0, np.array(mask.shape) - 1)
    half, last = (np.array(config.patch) - 1) / 2, np.array(mask.shape) - 1.0
    return np.where(last <= 2 * half, last / 2, np.clip(wanted, half, np.maximum(last - half, half)))
