"""Training of the segmenter: patches, and the loss on them."""

import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from medgen3d_stages.arrays import Batch, Example
from medgen3d_stages.monai_parts import DiceCELoss
from medgen3d_stages.segmenter.config import SegmenterConfig

_SLAB = 16  # slices read at a time, to find labels


def cut_patch(
    example: Example, config: SegmenterConfig, spacing_mm: tuple[float, float, float], rng: np.random.Generator
) -> Batch:
    """A patch of the case, turned, scaled and changed in contrast; beyond the case's borders it is reflected.

    Of the case no more is read than a slab with labels, to place the patch, and the box that the patch comes from.

    Returns:
        image: [1, *patch]. mask: int64 [1, *patch].
    """
    matrix = _turned_and_scaled(config, spacing_mm, rng)
    top, bottom, left, right = example.box
    origin, shape = np.array([0, top, left]), (len(example.mask), bottom - top, right - left)
    offset = _centre(example, shape, config, rng) - matrix @ ((np.array(config.patch) - 1) / 2)
    first, stop = _box(matrix, offset, config.patch, shape)
    taken = tuple(slice(*ends) for ends in zip(origin + first, origin + stop, strict=True))
    common = {"matrix": matrix, "offset": offset - first, "output_shape": config.patch, "mode": "mirror"}
    patch = ndimage.affine_transform(example.image[taken].astype(np.float32), order=1, **common)
    labels = ndimage.affine_transform(example.mask[taken].astype(np.int64), order=0, **common)
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


def _centre(
    example: Example, shape: tuple[int, int, int], config: SegmenterConfig, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Where in the case the patch's middle lies: as far inside as the patch allows, or the middle of a short axis."""
    wanted = _labelled(example, rng) if rng.random() < config.foreground_share else None
    if wanted is None:
        wanted = rng.uniform(0, np.array(shape) - 1)
    half, last = (np.array(config.patch) - 1) / 2, np.array(shape) - 1.0
    return np.where(last <= 2 * half, last / 2, np.clip(wanted, half, np.maximum(last - half, half)))


def _labelled(example: Example, rng: np.random.Generator) -> NDArray[np.float64] | None:
    """A voxel of the case that has a label, of the first slice that has any from a random one on; None: there is none.

    A slice is as likely as another however many of its voxels have labels, so that no slice must be read to know.
    """
    top, bottom, left, right = example.box
    depth = len(example.mask)
    start = int(rng.integers(depth))
    for begin, end in ((start, depth), (0, start)):
        for first in range(begin, end, _SLAB):
            slab = example.mask[first : min(first + _SLAB, end), top:bottom, left:right]
            shown = slab.any(axis=(1, 2))
            if shown.any():
                number = int(shown.argmax())
                rows, columns = np.nonzero(slab[number])
                chosen = int(rng.integers(len(rows)))
                return np.array([first + number, rows[chosen], columns[chosen]], np.float64)
    return None


def _box(
    matrix: NDArray[np.float64], offset: NDArray[np.float64], patch: tuple[int, int, int], shape: tuple[int, int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First voxels and ends of the part of the case that a patch is made of, what is reflected into it included."""
    corners = np.array(list(itertools.product(*[(0, side - 1) for side in patch]))) @ matrix.T + offset
    first, stop = np.floor(corners.min(axis=0)).astype(int) - 1, np.ceil(corners.max(axis=0)).astype(int) + 2
    sides = np.array(shape)
    below, above = np.maximum(-first, 0), np.maximum(stop - sides, 0)
    # What lies n voxels beyond a border is what lies n voxels before it.
    return (
        np.clip(np.minimum(first, np.where(above > 0, sides - 1 - above, first)), 0, sides - 1),
        np.clip(np.maximum(stop, np.where(below > 0, below + 1, stop)), 1, sides),
    )
