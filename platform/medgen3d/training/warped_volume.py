"""A volume whose voxels are fetched from places nearby, where it is sliced: no more is read and computed than that."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgen3d.artifacts.case_file import box_of_key
from medgen3d_stages.arrays import Volume3D

Box = tuple[tuple[int, int], ...]
"""(start, stop) along (z, y, x)."""
_AT_ONCE = 2**17  # voxels, so that what is computed for them stays in a processor's cache


@dataclass(frozen=True, slots=True)
class DerivedVolume(ABC):
    """A volume of the shape and type of another, whose voxels are made of the other's where it is sliced."""

    source: Volume3D

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    def __len__(self) -> int:
        return len(self.source)

    @abstractmethod
    def __getitem__(self, key: Any) -> NDArray[Any]: ...

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)


@dataclass(frozen=True, slots=True)
class WarpedVolume(DerivedVolume):
    """A volume that is warped where it is sliced: `volume[3:9, :, 40:80]`, steps of 1.

    field: [3, knots along z, y, x], displacements along (z, y, x) [voxels]; the outermost knots lie on the case's first
        and last voxels, and between knots displacements are linear along each axis.
    inside: The case within the volume. What lies outside stays as it is; what would come from there is reflected.
    labels: Whether voxels are labels, which are taken from the nearest voxel; else they are interpolated linearly.
    """

    field: Tensor
    inside: Box
    labels: bool

    def __getitem__(self, key: Any) -> NDArray[Any]:
        depth, height, width = self.source.shape
        box, numbers = box_of_key(key, (depth, height, width))
        bounds = tuple(
            (max(start, low), min(stop, high)) for (start, stop), (low, high) in zip(box, self.inside, strict=True)
        )
        warped = all(start < stop for start, stop in bounds)
        if warped and bounds == tuple(box):
            result = self._fetched(bounds)
        else:
            result = np.array(self.source[tuple(slice(*each) for each in box)])
            if warped:
                place = zip(bounds, box, strict=True)
                result[tuple(slice(start - low, stop - low) for (start, stop), (low, _) in place)] = self._fetched(
                    bounds
                )
        taken: NDArray[Any] = result[numbers]
        return taken

    def _fetched(self, bounds: Box) -> NDArray[Any]:
        """The voxels of a box that lies inside the case."""
        sides = [high - low for low, high in self.inside]
        local = [
            torch.arange(start - low, stop - low).float()
            for (start, stop), (low, _) in zip(bounds, self.inside, strict=True)
        ]
        ranges = [_extent(*each) for each in zip(self._places(self._ends_and_knots(local)), sides, strict=True)]
        taken = tuple(
            slice(low + first, low + last) for (first, last), (low, _) in zip(ranges, self.inside, strict=True)
        )
        part = np.ascontiguousarray(self.source[taken])
        result = np.empty([len(each) for each in local], part.dtype)
        block = max(_AT_ONCE // (len(local[1]) * len(local[2])), 1)
        for begin in range(0, len(local[0]), block):
            slices = slice(begin, begin + block)
            places = self._places([local[0][slices], *local[1:]])
            for place, side, (first, _) in zip(places, sides, ranges, strict=True):
                _reflect(place, side)
                place -= first
            result[slices] = _nearest(part, places) if self.labels else _linear(part, places)
        return result

    def _places(self, along: Sequence[Tensor]) -> Tensor:
        """Where the voxels of a grid come from, [3, z, y, x] within the case; the grid is given along each axis."""
        z, y, x = (
            _between_knots(each, count, high - low)
            for each, count, (low, high) in zip(along, self.field.shape[1:], self.inside, strict=True)
        )
        places = y @ torch.einsum("zk,akyx->azyx", z, self.field) @ x.T
        for place, each, sides in zip(places, along, ((-1, 1, 1), (-1, 1), (-1,)), strict=True):
            place += each.view(sides)
        return places

    def _ends_and_knots(self, along: Sequence[Tensor]) -> list[Tensor]:
        """A grid of a box's ends and the knots between them: no voxel of the box comes from beyond all of these."""
        grid = []
        for each, count, (low, high) in zip(along, self.field.shape[1:], self.inside, strict=True):
            knots = torch.linspace(0, high - low - 1, count)
            grid.append(torch.cat([each[:1], knots[(knots > each[0]) & (knots < each[-1])], each[-1:]]))
        return grid


def _between_knots(places: Tensor, count: int, side: int) -> Tensor:
    """Weights [places, knots] that interpolate linearly between `count` knots over `side` voxels."""
    at = places * (count - 1) / max(side - 1, 1)
    before = at.floor().clamp(0, count - 2).long()
    weights = torch.zeros(len(places), count)
    rows = torch.arange(len(places))
    weights[rows, before + 1] = at - before
    weights[rows, before] = 1 - (at - before)
    return weights


def _extent(places: Tensor, side: int) -> tuple[int, int]:
    """First voxel and end of what is fetched from places between the smallest and the largest of these."""
    low, high = float(places.min()) - 1e-3, float(places.max()) + 1e-3
    last = side - 1
    if high - low >= last:
        return 0, side
    borders = range(int(low // max(last, 1)), int(high // max(last, 1)) + 1)
    crossed = [float(border * last) for border in borders if low < border * last < high]
    reflected = torch.tensor([low, high, *crossed])
    _reflect(reflected, side)
    return max(int(reflected.min()), 0), min(int(reflected.max()) + 2, side)


def _reflect(place: Tensor, side: int) -> None:
    """Reflect places beyond the ends of an axis at its first and last voxel, in place."""
    if side == 1:
        place.zero_()
        return
    last = side - 1.0
    low, high = map(float, torch.aminmax(place))
    if low < -last or high > 2 * last:
        place.remainder_(2 * last)
    if low < 0:
        place.abs_()
    if low < 0 or high > last:
        place.sub_(last).abs_().neg_().add_(last)


def _nearest(part: NDArray[Any], places: Tensor) -> NDArray[Any]:
    flat = _flat(places.round_(), part.shape)
    bits = torch.from_numpy(part.view(f"i{part.itemsize}")).view(-1)  # torch selects no unsigned 16 bits
    return bits.index_select(0, flat.view(-1)).view(flat.shape).numpy().view(part.dtype)


def _linear(part: NDArray[Any], places: Tensor) -> NDArray[Any]:
    """Between the eight voxels around each place."""
    first = places.floor()
    share = places.sub_(first)
    _, height, width = part.shape
    strides = (height * width, width, 1)
    # The neighbour beyond the last voxel has weight 0: the last voxel itself does as well.
    steps = [
        (number < side - 1).int().mul_(stride) for number, side, stride in zip(first, part.shape, strides, strict=True)
    ]
    corner = _flat(first, part.shape)
    voxels, values = torch.from_numpy(part).view(-1), {}
    for far in product((0, 1), repeat=3):
        where = corner
        for step, is_far in zip(steps, far, strict=True):
            if is_far:
                where = where + step
        values[far] = voxels.index_select(0, where.view(-1)).view(where.shape)
    for axis in (2, 1, 0):
        values = {
            far[:-1]: torch.lerp(value, values[(*far[:-1], 1)], share[axis].to(value.dtype))
            for far, value in values.items()
            if not far[-1]
        }
    return values[()].numpy()


def _flat(numbers: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Places in the flattened array of whole numbers [3, ...] along its axes; overwrites them."""
    _, height, width = shape
    if shape[0] * height * width >= 2**24:  # where float32 no longer knows every whole number
        numbers = numbers.double()
    return numbers[0].mul_(height).add_(numbers[1]).mul_(width).add_(numbers[2]).int()
