"""A volume in memory, and the one place where its axis order is said.

Memory order is `[D, H, W]` = (z, y, x) of a RAS grid: index 0 is inferior, posterior, left. It is the RAS array of a
NIfTI file transposed by (2, 1, 0), without flips. Affines stay NIfTI's: they map (x, y, z) indices to millimetres.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

Affine = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume:
    """Voxels and where they lie.

    voxels: [D, H, W] (z, y, x).
    affine: 4 x 4, maps (x, y, z, 1) voxel indices to RAS millimetres.
    """

    voxels: NDArray[np.generic]
    affine: Affine

    def __post_init__(self) -> None:
        if self.voxels.ndim != 3:
            raise ValueError(f"a volume has three axes [D, H, W], got shape {self.voxels.shape}")
        if self.affine.shape != (4, 4):
            raise ValueError(f"an affine is 4 x 4, got shape {self.affine.shape}")

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size in millimetres along (D, H, W)."""
        return spacing_of(self.affine)


def spacing_of(affine: Affine) -> tuple[float, float, float]:
    """Voxel size in millimetres along (D, H, W) = (z, y, x) of an affine that maps (x, y, z) indices."""
    x_mm, y_mm, z_mm = (float(length) for length in np.sqrt((affine[:3, :3] ** 2).sum(axis=0)))
    return z_mm, y_mm, x_mm


def affine_from_spacing(spacing_mm: tuple[float, float, float]) -> Affine:
    """A RAS affine with origin 0 for voxels of `spacing_mm` along (D, H, W)."""
    z_mm, y_mm, x_mm = spacing_mm
    return np.diag([x_mm, y_mm, z_mm, 1.0])


def as_type(array: NDArray[np.generic], dtype: DTypeLike) -> NDArray[np.generic]:
    """An array in another type; integers are rounded and clipped, labels must fit exactly (ValueError)."""
    dtype = np.dtype(dtype)
    if dtype.kind not in "iu" or array.dtype == dtype:
        return array.astype(dtype)
    limits = np.iinfo(dtype)
    if array.dtype.kind == "f":
        return np.clip(np.rint(array.astype(np.float64)), limits.min, limits.max).astype(dtype)
    if array.size and not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
        raise ValueError(f"values from {array.min()} to {array.max()} do not fit voxel type {dtype.name}")
    return array.astype(dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """The part of a padded plane that shows the case itself: rows top..bottom - 1 and columns left..right - 1."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def centred(cls, height: int, width: int, plane_height: int, plane_width: int) -> "Box":
        """The box of a `height` x `width` image in the middle of a plane; both must fit."""
        if height > plane_height or width > plane_width:
            raise ValueError(f"a {height} x {width} image does not fit a {plane_height} x {plane_width} plane")
        top, left = (plane_height - height) // 2, (plane_width - width) // 2
        return cls(top=top, bottom=top + height, left=left, right=left + width)

    @property
    def rows(self) -> slice:
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        return slice(self.left, self.right)

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left
