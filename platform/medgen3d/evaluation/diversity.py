"""Diversity: the structural similarity of a set's volumes to one another."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NUM_PAIRS = 100
MAX_SIDE = 64
_KERNEL = 7  # voxels; the 11 of the paper leave small volumes a single scale
# Weights of the scales, from the finest on (Wang et al. 2003).
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

Thumbnail = NDArray[np.float16]


def thumbnail(image: NDArray[np.floating]) -> Thumbnail:
    """A volume [D, h, w] in [-1, 1] -> [0, 1], averaged down to MAX_SIDE along each axis that is longer."""
    import torch
    from torch.nn.functional import adaptive_avg_pool3d

    volume = torch.from_numpy(image.astype(np.float32))[None]
    depth, height, width = (min(side, MAX_SIDE) for side in image.shape)
    small = adaptive_avg_pool3d(volume, (depth, height, width))[0]
    return ((small + 1) / 2).numpy().astype(np.float16)


def similarities(thumbnails: Sequence[Thumbnail], rng: np.random.Generator) -> NDArray[np.float64]:
    """MS-SSIM of up to NUM_PAIRS random pairs of volumes: [pairs], 1 for equal volumes, empty for fewer than two.

    All are brought to the median size by cutting off, or repeating, their outermost slices on both sides of an axis.
    The number of scales, 5 at most, is the largest that this size allows; their weights are made to sum to 1.

    Source: Wang, Simoncelli and Bovik 2003, as monai.metrics.MultiScaleSSIMMetric computes it in 3D.
    """
    import torch

    from medgen3d_stages.monai_parts import MultiScaleSSIMMetric

    first, second = np.triu_indices(len(thumbnails), 1)
    if not len(first):
        return np.empty(0)
    chosen = rng.permutation(len(first))[:NUM_PAIRS]
    size = np.median([each.shape for each in thumbnails], axis=0).astype(int)
    volumes = [torch.from_numpy(_resized(each, size))[None, None] for each in thumbnails]
    kernel = tuple(min(_KERNEL, int(side)) for side in size)
    weights = np.array(_WEIGHTS[: _num_scales(size, kernel)])
    metric = MultiScaleSSIMMetric(3, kernel_size=kernel, weights=(weights / weights.sum()).tolist(), reduction="none")
    return np.array([float(metric(volumes[first[pair]], volumes[second[pair]])) for pair in chosen])


def _resized(volume: Thumbnail, size: NDArray[np.integer]) -> NDArray[np.float32]:
    """Cut or padded with its border, alike on both sides of each axis."""
    excess = np.array(volume.shape) - size
    inside = tuple(
        slice(more // 2, more // 2 + side) if more > 0 else slice(None) for more, side in zip(excess, size, strict=True)
    )
    missing = [(less // 2, less - less // 2) for less in np.maximum(-excess, 0)]
    return np.pad(volume[inside].astype(np.float32), missing, mode="edge")


def _num_scales(size: NDArray[np.integer], kernel: Sequence[int]) -> int:
    """Each scale halves the volume, which must stay as large as the kernel; MONAI also asks for (scales - 1)²."""
    room = min(side // width for side, width in zip(size, kernel, strict=True))
    return max(n for n in range(1, len(_WEIGHTS) + 1) if n == 1 or max(2 ** (n - 1), (n - 1) ** 2) <= room)
