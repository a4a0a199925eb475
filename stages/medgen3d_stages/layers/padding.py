"""Fitting slices to what a network accepts, and back."""

import numpy as np
import torch
from torch import Tensor


def multiple_of(size: int, factor: int) -> int:
    """The smallest multiple of `factor` that is at least `size`."""
    return -(-size // factor) * factor


def reflected(size: int, padded: int) -> Tensor:
    """Indices [padded] that continue an axis of `size` by reflection, repeatedly where the pad exceeds the axis."""
    return torch.from_numpy(np.pad(np.arange(size), (0, padded - size), mode="reflect"))
