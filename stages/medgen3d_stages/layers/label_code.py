"""Labels as a few numbers per pixel, so that what a network costs does not grow with the number of labels.

Up to PLANES labels each has a plane of its own. More labels share PLANES planes: each is a point on a sphere there,
and the points lie as far apart as they can, about as far as one-hot labels do (docs/decisions/0017).
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

PLANES = 8
"""Planes that labels take at most. In 8 dimensions 240 points fit on a sphere 60 degrees apart."""
NO_LABEL = -1
"""Label of a pixel of which nothing is shown: of a slice that does not exist, or of a hidden mask."""
_SLAB = 2**27  # logits at a time; 512 MiB
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
    """Labels as the planes that a network is shown; NO_LABEL is 0 in all of them.

    Up to PLANES labels they are one-hot in {0, 1} and there is nothing to learn; beyond, each label's numbers are.
    """

    table: Tensor

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.num_planes = num_planes(num_labels)
        if num_labels > PLANES:
            self.table = nn.Parameter(spread_codes(num_labels))
        else:
            self.register_buffer("table", torch.eye(num_labels), persistent=False)

    def forward(self, labels: Tensor) -> Tensor:
        """Integer [B, ...] from NO_LABEL to K - 1 -> float [B, num_planes, ...]."""
        rows = torch.cat([self.table.new_zeros(1, self.num_planes), self.table])
        return nn.functional.embedding(labels.int() - NO_LABEL, rows).movedim(-1, 1)


class LabelHead(nn.Module):
    """From a network's features to probabilities of labels, and between labels and the signal that is diffused.

    num_features: Features per voxel that the network must give. Up to PLANES labels they are the logits themselves;
        beyond, a learnt linear map makes the logits of them, a slab at a time.
    """

    codes: Tensor

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.num_labels, self.num_planes = num_labels, num_planes(num_labels)
        shares = num_labels > PLANES
        self.num_features = 2 * PLANES if shares else num_labels
        self.to_logits = nn.Linear(self.num_features, num_labels) if shares else None
        self._largest = math.sqrt(PLANES) if shares else 1.0  # that a number of a code can be
        # In the weights where labels share planes: another machine might round the points otherwise.
        self.register_buffer("codes", spread_codes(num_labels), persistent=shares)

    def encode(self, mask: Tensor) -> Tensor:
        """The clean signal of integer labels: [B, ...] -> [B, num_planes, ...]."""
        return nn.functional.embedding(mask.int(), self.codes).movedim(-1, 1)

    def logits(self, features: Tensor) -> Tensor:
        """[B, num_features, ...] -> float32 [B, K, ...]."""
        if self.to_logits is None:
            return features.float()
        return self.to_logits(features.movedim(1, -1)).movedim(-1, 1).float()

    def expected(self, probabilities: Tensor) -> Tensor:
        """The clean signal under probabilities of the labels: [B, K, ...] -> [B, num_planes, ...]."""
        if self.to_logits is None:
            return 2 * probabilities - 1
        with torch.autocast(probabilities.device.type, enabled=False):
            return torch.einsum("bk...,kp->bp...", probabilities, self.codes)

    def slab(self, features: Tensor) -> int:
        """How many slices of [B, num_features, m, H, W] have their logits made at once."""
        batch, _, _, height, width = features.shape
        return max(_SLAB // (batch * self.num_labels * height * width), 1)

    def decode(self, features: Tensor, free: Tensor | None = None, guidance: float = 1.0) -> tuple[Tensor, Tensor]:
        """The expected clean signal and the likeliest labels, some slices at a time.

        Args:
            features: [B, num_features, m, H, W].
            free: The same without the condition, for classifier-free guidance.
            guidance: Weight w of the condition: free + w (features - free), of the probabilities.

        Returns:
            [B, num_planes, m, H, W] and int64 [B, m, H, W].
        """
        slab, signals, labels = self.slab(features), [], []
        for first in range(0, features.shape[2], slab):
            part = slice(first, first + slab)
            likely = self.logits(features[:, :, part]).softmax(dim=1)
            if free is not None:
                unconditional = self.logits(free[:, :, part]).softmax(dim=1)
                likely = unconditional + guidance * (likely - unconditional)
            signals.append(self.expected(likely))
            labels.append(likely.argmax(dim=1))
        return torch.cat(signals, dim=2).clamp(-self._largest, self._largest), torch.cat(labels, dim=1)
