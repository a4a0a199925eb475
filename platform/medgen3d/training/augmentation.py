"""Augmentation: training cases changed a little whenever they are visited, as further cases where there are few.

Shapes are changed by moving voxels: bending by a smooth random field, turning, scaling and flipping are one field of
displacements, which is applied where a stage slices the case (`warped_volume.py`).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from medgen3d.config.training import Augmentation
from medgen3d.training.warped_volume import DerivedVolume, WarpedVolume
from medgen3d_stages.arrays import Example

KNOTS_MM = 16.0
"""Distance of the points at which displacements are drawn; between them the field is smooth."""
_AXES = "zyx"


def augmented(
    example: Example, spacing_mm: tuple[float, float, float], chosen: Augmentation, rng: np.random.Generator
) -> Example:
    """A case as changed as is chosen; what lies beyond the case's border is reflected.

    Args:
        example: Image (linear) and mask (nearest) are moved alike, inside the case's box.
        spacing_mm: Voxel size along (D, H, W).
        chosen: How much of what.
        rng: Draws all changes.
    """
    changed = example
    if chosen.moves_voxels:
        top, bottom, left, right = example.box
        inside = ((0, len(example.mask)), (top, bottom), (left, right))
        field = torch.from_numpy(
            _displacements([stop - start for start, stop in inside], spacing_mm, chosen, rng)
        ).float()
        changed = replace(
            example,
            image=WarpedVolume(example.image, field, inside, labels=False),
            mask=WarpedVolume(example.mask, field, inside, labels=True),
        )
    if chosen.intensity_jitter:
        contrast, brightness = (
            1 + chosen.intensity_jitter * rng.uniform(-1, 1),
            chosen.intensity_jitter * rng.uniform(-1, 1),
        )
        changed = replace(changed, image=JitteredVolume(changed.image, contrast, brightness / 2))
    return changed


def _displacements(
    sides: list[int], spacing_mm: tuple[float, float, float], chosen: Augmentation, rng: np.random.Generator
) -> NDArray[np.float64]:
    """[3, knots along z, y, x] in voxels."""
    knots = [max(2, round(size * length / KNOTS_MM) + 1) for size, length in zip(sides, spacing_mm, strict=True)]
    spacing = np.array(spacing_mm)[:, None, None, None]
    bent = chosen.bend_mm * rng.standard_normal((3, *knots)) / spacing
    axis, angle = rng.standard_normal(3), np.deg2rad(chosen.rotation_degrees) * rng.uniform(-1, 1)
    turned = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix() / (
        1 + chosen.zoom * rng.uniform(-1, 1)
    )
    flipped = np.where(np.isin(list(_AXES), chosen.flip_axes) & (rng.random(3) < 0.5), -1.0, 1.0)
    ends = [np.linspace(-(side - 1) / 2, (side - 1) / 2, count) for side, count in zip(sides, knots, strict=True)]
    from_middle = np.stack(np.meshgrid(*ends, indexing="ij"))
    moved = np.einsum("ab,b...->a...", turned * flipped, from_middle * spacing) / spacing - from_middle
    return bent + moved


@dataclass(frozen=True, slots=True)
class JitteredVolume(DerivedVolume):
    """An image in another contrast, where it is sliced: contrast x image + brightness, within [-1, 1]."""

    contrast: float
    brightness: float

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        changed = self.contrast * self.source[key] + self.brightness
        return np.clip(changed, -1, 1).astype(np.float32)
