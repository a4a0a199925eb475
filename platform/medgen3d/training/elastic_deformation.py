"""Elastic deformation: training volumes bent by smooth random fields, as further shapes where there are few cases."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from medgen3d_stages.arrays import Example

KNOTS_MM = 16.0
"""Distance of the points at which displacements are drawn; between them the field is smooth."""


def elastically_deformed(
    example: Example, spacing_mm: tuple[float, float, float], bend_mm: float, rng: np.random.Generator
) -> Example:
    """The volume with every voxel fetched from a place nearby; what lies beyond the case's border is reflected.

    Args:
        example: Image (linear) and mask (nearest) are bent alike, inside the case's box.
        spacing_mm: Voxel size along (D, H, W).
        bend_mm: Standard deviation of the displacements at the knots, along each axis.
        rng: Draws the field.
    """
    top, bottom, left, right = example.box
    inside = (slice(None), slice(top, bottom), slice(left, right))
    image, mask = example.image[inside], example.mask[inside]
    grid = _grid(image.shape, spacing_mm, bend_mm, rng)
    bent_image, bent_mask = np.array(example.image[:]), np.array(example.mask[:])
    bent_image[inside] = _fetched(image.astype(np.float32), grid, "bilinear")
    bent_mask[inside] = _fetched(mask.astype(np.float32), grid, "nearest").astype(mask.dtype)
    return replace(example, image=bent_image, mask=bent_mask)


def _grid(
    shape: tuple[int, ...], spacing_mm: tuple[float, float, float], bend_mm: float, rng: np.random.Generator
) -> Tensor:
    """The place that each voxel is fetched from, [1, D, H, W, 3] in grid_sample's coordinates (x, y, z)."""
    knots = [max(2, round(size * length / KNOTS_MM) + 1) for size, length in zip(shape, spacing_mm, strict=True)]
    at_knots = bend_mm * rng.standard_normal((1, 3, *knots))
    field = F.interpolate(torch.from_numpy(at_knots).float(), size=tuple(shape), mode="trilinear", align_corners=True)[
        0
    ]
    places = torch.meshgrid(*(torch.arange(size, dtype=torch.float32) for size in shape), indexing="ij")
    moved = [
        2 * (place + shift / length) / max(size - 1, 1) - 1
        for place, shift, length, size in zip(places, field, spacing_mm, shape, strict=True)
    ]
    return torch.stack(moved[::-1], dim=-1)[None]


def _fetched(values: NDArray[np.float32], grid: Tensor, mode: str) -> NDArray[np.float32]:
    volume = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    fetched: NDArray[np.float32] = F.grid_sample(
        volume, grid, mode=mode, padding_mode="reflection", align_corners=True
    )[0, 0].numpy()
    return fetched
