"""Named arrays and the axis legend of the stages.

A volume is `[D, H, W]` (z, y, x): index 0 is inferior, posterior, left; the *sequence* runs along D. A batch puts
`B` in front, channels come second: `[B, C, ...]`. K is the number of labels including the background. Images live in
[-1, 1]. An integer label array is a `mask`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Networks = dict[str, torch.nn.Module]
Item = TypeVar("Item")
Batch = dict[str, Tensor]
Mask = NDArray[np.integer]
"""Integer labels [D, h, w]."""
Image = NDArray[np.float32]
"""[D, h, w] in [-1, 1]."""


class Volume3D(Protocol):
    """What examples are cut from: an array, or a volume on disk that reads what it is sliced by (steps of 1)."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A training volume as the stages see it.

    Whoever cuts an example slices image and mask first and computes with the arrays that come.

    image: float32 [D, H, W] in [-1, 1].
    mask: Integer [D, H, W], contiguous ids 0..K-1.
    box: (top, bottom, left, right) of the case in the H x W plane; outside it the image is padding.
    """

    image: Volume3D
    mask: Volume3D
    box: tuple[int, int, int, int]

    def cropped(self) -> tuple[Image, Mask]:
        """Image and mask [D, h, w] without the padding."""
        top, bottom, left, right = self.box
        return self.image[:, top:bottom, left:right], self.mask[:, top:bottom, left:right]


def normal(shape: Sequence[int], generators: Sequence[torch.Generator], device: torch.device) -> Tensor:
    """Standard normal noise [len(generators), *shape], each item from its own stream whatever its neighbours are.

    Drawn where it is needed: on a GPU from a stream of the GPU that the item's CPU stream seeds.
    """
    if device.type == "cpu":
        return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators])
    streams = [torch.Generator(device).manual_seed(child_seed(generator)) for generator in generators]
    return torch.stack([torch.randn(tuple(shape), generator=stream, device=device) for stream in streams])


def child_seed(generator: torch.Generator) -> int:
    """A seed drawn from a stream, for a stream of its own below it."""
    return int(torch.randint(0, 2**62, (), generator=generator))


def child(generator: torch.Generator) -> torch.Generator:
    """A new CPU stream seeded from the next draw of `generator`."""
    return torch.Generator().manual_seed(child_seed(generator))


def batches(items: Sequence[Item], width: int | None) -> Iterator[tuple[Sequence[Item], Sequence[Item]]]:
    """Split what shares a device: (items, the same filled up to `width` by its last one); None: all in one batch.

    Sums over a batch of another width may round otherwise; with one width everywhere, an item's neighbours do not
    change its numbers.
    """
    width = width or max(len(items), 1)
    for first in range(0, len(items), width):
        part = items[first : first + width]
        yield part, [*part, *[part[-1]] * (width - len(part))]
