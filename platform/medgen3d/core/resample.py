"""Resampling to the training set's voxel size: images linearly, masks by nearest neighbour; scipy does both."""

from typing import Literal

import numpy as np
from scipy.ndimage import affine_transform

from medgen3d.core.volume import Volume

Sizes = tuple[float, float, float]
Shape = tuple[int, int, int]

SAME_SPACING = 1e-3
"""Relative difference of voxel sizes below which an axis is left untouched."""
_ORDER = {"linear": 1, "nearest": 0}


def grid_shape(shape: Shape, spacing_mm: Sizes, target_mm: Sizes) -> Shape:
    """Voxels along (D, H, W) after resampling: the same extent in millimetres, rounded to whole voxels, at least 1."""
    steps = _steps(spacing_mm, target_mm)
    depth, height, width = (max(1, round(length / step)) for length, step in zip(shape, steps, strict=True))
    return depth, height, width


def resample(volume: Volume, target_mm: Sizes, how: Literal["linear", "nearest"]) -> Volume:
    """A volume on a grid of another voxel size with the same centre; beyond the outermost voxels it is constant.

    Voxel j of the new axis lies at (j - (new - 1) / 2) * step + (old - 1) / 2 on the old one, where step is the ratio
    of the voxel sizes. An axis whose size is right within 0.1 % is not touched, and a volume with three such axes is
    returned as it is.

    Args:
        volume: Any numbers for linear, labels for nearest.
        target_mm: Voxel size along (D, H, W).
        how: linear gives float32, nearest keeps the type.
    """
    old_shape = volume.voxels.shape
    steps = np.array(_steps(volume.spacing_mm, target_mm))
    if (steps == 1).all():
        return volume
    new_shape = grid_shape(old_shape, volume.spacing_mm, target_mm)
    offset = (np.array(old_shape) - 1) / 2 - (np.array(new_shape) - 1) / 2 * steps
    voxels = volume.voxels.astype(np.float32) if how == "linear" else volume.voxels
    moved = affine_transform(voxels, steps, offset, new_shape, order=_ORDER[how], mode="nearest", prefilter=False)
    to_old = np.diag([*steps[::-1], 1.0])  # affines take (x, y, z)
    to_old[:3, 3] = offset[::-1]
    return Volume(voxels=moved, affine=volume.affine @ to_old)


def _steps(spacing_mm: Sizes, target_mm: Sizes) -> Sizes:
    """Old voxels per new voxel along each axis; exactly 1 where the size is right."""
    depth, height, width = (
        1.0 if abs(target / spacing - 1) <= SAME_SPACING else target / spacing
        for spacing, target in zip(spacing_mm, target_mm, strict=True)
    )
    return depth, height, width
