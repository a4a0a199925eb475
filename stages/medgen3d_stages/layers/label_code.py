"""Labels as a few numbers per pixel, so that what a network costs does not grow with the number of labels.

Up to PLANES labels each has a plane of its own. More labels share PLANES planes: each is a point on a sphere there,
and the points lie as far apart as they can, about as far as one-hot labels do (docs/decisions/0017).
"""

import numpy as np
import torch
from torch import Tensor, nn

PLANES = 8
"""Planes that labels take at most. In 8 dimensions 240 points fit on a sphere 60 degrees apart."""
_ROUNDS = 300


def num_planes(num_labels: int) -> int:
    """Planes that so many labels take."""
    return min(num_labels, PLANES)


def spread_codes(num_labels: int) -> Tensor:
    """The clean signal of each label, float32 [K, num_planes(K)], all of one length.

    Up to PLANES labels: one-hot in {-1, +1}. Beyond: points on the sphere of radius sqrt(PLANES), pushed apart by
    what lies nearest; neighbours are then about 2 sqrt(2) apart, as any two one-hot labels are.
    """
    if num_labels <= PLANES:
        return 2 * torch.eye(num_labels) - 1
    points = np.random.default_rng(0).standard_normal((num_labels, PLANES))
    for turn in range(_ROUNDS):
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        likeness = points @ points.T
        np.fill_diagonal(likeness, -np.inf)
        nearness = np.exp((likeness - likeness.max(axis=1, keepdims=True)) * (4 + turn / 4))
        points -= (1 - turn / _ROUNDS) * 0.1 * (nearness @ points) / nearness.sum(axis=1, keepdims=True)
    points *= np.sqrt(PLANES) / np.linalg.norm(points, axis=1, keepdims=True)
    return torch.from_numpy(points.astype(np.float32))


class LabelPlanes(nn.Module):
    """Labels as the planes that a network is shown; a label of -1 (no slice, no mask) is 0 in all of them.

    Up to PLANES labels they are one-hot in {0, 1} and there is nothing to learn; beyond, each label's numbers are.
    """

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.num_planes = num_planes(num_labels)
        self.table = nn.Parameter(spread_codes(num_labels)) if num_labels > PLANES else None
        if self.table is None:
            self.register_buffer("one_hot", torch.eye(num_labels), persistent=False)

    def forward(self, labels: Tensor) -> Tensor:
        """Integer [B, ...] from -1 to K - 1 -> float [B, num_planes, ...]."""
        table = self.one_hot if self.table is None else self.table
        rows = torch.cat([table.new_zeros(1, self.num_planes), table])
        return nn.functional.embedding(labels.long() + 1, rows).movedim(-1, 1)
