"""Distances between two groups of cases, each described by feature vectors; in float64."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.floating]
"""Of one case: [n, C], one vector per slice."""


def frechet_distance(first: Sequence[Features], second: Sequence[Features]) -> float:
    """FID: squared Fréchet distance between Gaussians with the means and covariances of all vectors of a group.

    The trace of the square root of the covariances' product is the sum of the singular values of R1 R2', where each
    covariance is R'R. So no matrix root is taken: that of a singular product, and with fewer vectors than features it
    always is one, comes out complex, negative, or not at all (monai.metrics.FIDMetric and scipy's sqrtm below it).

    Args:
        first: At least 2 vectors in all.
        second: The same; numbers of cases and vectors may differ.

    Source: Heusel et al. 2017, eq. 6 (arXiv:1706.08500).
    """
    groups = [np.concatenate(group).astype(np.float64) for group in (first, second)]
    difference = groups[0].mean(axis=0) - groups[1].mean(axis=0)
    roots = [_covariance_root(group) for group in groups]
    variance = sum(float((root**2).sum()) for root in roots)
    shared = float(np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum())
    return max(0.0, float(difference @ difference) + variance - 2 * shared)


def kernel_distance(first: Sequence[Features], second: Sequence[Features]) -> float:
    """KID: unbiased squared maximum mean discrepancy with the kernel (x·y / C + 1)³.

    Within a group, vectors of different cases are paired: those of one case depend on one another, so pairs of them
    would bias the estimate.

    Args:
        first: At least 2 cases.
        second: The same; numbers of cases and vectors may differ.

    Source: Bińkowski et al. 2018 (arXiv:1801.01401).
    """
    between = _kernel(np.concatenate(first), np.concatenate(second)).mean()
    return _mean_of_pairs(first) + _mean_of_pairs(second) - 2 * float(between)


def _covariance_root(features: Features) -> NDArray[np.float64]:
    """R [min(n, C), C] with R'R = covariance."""
    centred = features - features.mean(axis=0)
    root = np.linalg.qr(centred, mode="r") if len(features) > features.shape[1] else centred
    return root / np.sqrt(len(features) - 1)


def _kernel(first: Features, second: Features) -> NDArray[np.float64]:
    return (first.astype(np.float64) @ second.astype(np.float64).T / first.shape[1] + 1) ** 3


def _mean_of_pairs(cases: Sequence[Features]) -> float:
    """Mean kernel over all pairs of vectors of different cases."""
    vectors, case = np.concatenate(cases), np.repeat(np.arange(len(cases)), [len(each) for each in cases])
    return float(_kernel(vectors, vectors)[case[:, None] != case].mean())
