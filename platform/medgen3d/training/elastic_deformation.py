"""Elastic deformation: training volumes bent by smooth random fields, as further shapes where there are few cases.

What is bent is what is sliced: a bent volume knows its field at the knots, and fetches the voxels of a window or a crop
from the part of the case that they come from.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from medgen3d.artifacts.case_file import box_of_key
from medgen3d_stages.arrays import Example, Volume3D

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
    inside = ((0, len(example.mask)), (top, bottom), (left, right))
    sides = [stop - start for start, stop in inside]
    knots = [max(2, round(size * length / KNOTS_MM) + 1) for size, length in zip(sides, spacing_mm, strict=True)]
    shifts = bend_mm * rng.standard_normal((3, *knots)) / np.array(spacing_mm)[:, None, None, None]
    field = torch.from_numpy(shifts).float()
    return replace(
        example,
        image=BentVolume(example.image, field, inside, "bilinear"),
        mask=BentVolume(example.mask, field, inside, "nearest"),
    )


@dataclass(frozen=True, slots=True)
class BentVolume:
    """A volume that is bent where it is sliced: `volume[3:9, :, 40:80]`, steps of 1.

    source: What is bent.
    field: [3, knots along z, y, x], displacements along (z, y, x) [voxels].
    inside: (start, stop) along each axis of the case within the volume; what lies outside stays as it is.
    mode: `bilinear` or `nearest`.
    """

    source: Volume3D
    field: Tensor
    inside: tuple[tuple[int, int], ...]
    mode: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        depth, height, width = self.source.shape
        box, numbers = box_of_key(key, (depth, height, width))
        bounds = [
            (max(start, low), min(stop, high)) for (start, stop), (low, high) in zip(box, self.inside, strict=True)
        ]
        result = np.array(self.source[tuple(slice(*each) for each in box)])
        if all(start < stop for start, stop in bounds):
            target = tuple(
                slice(first - start, last - start) for (first, last), (start, _) in zip(bounds, box, strict=True)
            )
            result[target] = self._fetched(bounds)
        taken: NDArray[Any] = result[numbers]
        return taken

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def _fetched(self, bounds: list[tuple[int, int]]) -> NDArray[Any]:
        """The voxels of a box that lies inside the case."""
        places, taken = [], []
        for axis, ((start, stop), (low, high)) in enumerate(zip(bounds, self.inside, strict=True)):
            along = torch.arange(start - low, stop - low, dtype=torch.float32)
            place = _reflected(
                self._shift(axis, bounds) + along.view([-1 if each == axis else 1 for each in range(3)]), high - low
            )
            first, last = int(place.min()), min(int(place.max()) + 2, high - low)
            taken.append(slice(low + first, low + last))
            places.append(2 * (place - first) / max(last - first - 1, 1) - 1)
        part = self.source[tuple(taken)]
        volume = torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32))[None, None]
        grid = torch.stack(places[::-1], dim=-1)[None]
        fetched: NDArray[Any] = F.grid_sample(volume, grid, mode=self.mode, padding_mode="border", align_corners=True)[
            0, 0
        ].numpy()
        return fetched.astype(self.dtype)

    def _shift(self, axis: int, bounds: list[tuple[int, int]]) -> Tensor:
        """The displacement along an axis at each voxel of a box: linear between the knots, one axis after the other."""
        shift = self.field[axis]
        for along, ((start, stop), (low, high)) in enumerate(zip(bounds, self.inside, strict=True)):
            count = shift.shape[along]
            at = torch.arange(start - low, stop - low, dtype=torch.float32) * (count - 1) / max(high - low - 1, 1)
            before = at.floor().clamp(0, count - 2).long()
            weight = (at - before).view([-1 if each == along else 1 for each in range(3)])
            shift = torch.lerp(shift.index_select(along, before), shift.index_select(along, before + 1), weight)
        return shift


def _reflected(place: Tensor, side: int) -> Tensor:
    """Places beyond the ends of an axis, reflected at its first and last voxel."""
    if side == 1:
        return torch.zeros_like(place)
    period = 2.0 * (side - 1)
    folded = place.remainder(period)
    return torch.minimum(folded, period - folded)
