"""Fitting slices to what a network accepts, and back."""

import numpy as np
import torch
from torch import Tensor


def multiple_of(size: int, factor: int) -> int:
    """The smallest multiple of `factor` that is at least `size`."""
    return -(-size // factor) * factor


def padded_side(side: int, factor: int) -> int:
    """The smallest multiple of `factor` that is at least `side` and holds `factor` twice.

    `factor` pixels become one at a network's lowest resolution, and a plane of one pixel cannot be normalised.
    """
    return max(multiple_of(side, factor), 2 * factor)


def reflected(size: int, padded: int) -> Tensor:
    """Indices [padded] that continue an axis of `size` by reflection, repeatedly where the pad exceeds the axis."""
    return torch.from_numpy(np.pad(np.arange(size), (0, padded - size), mode="reflect"))
