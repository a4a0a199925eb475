"""Intensity histograms of volumes, and the distance between those of two groups."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from medgen3d.evaluation.real_floor import Floored, against_floor

NUM_BINS = 256
PERCENTILES = (0.5, 99.5)


def normalised(image: NDArray[np.floating]) -> NDArray[np.float64]:
    """A volume between its own percentiles 0.5 and 99.5, as 0 to 1; what lies outside is clipped, constant is 0."""
    low, high = np.percentile(image, PERCENTILES)
    if high <= low:
        return np.zeros(image.shape)
    return np.clip((image.astype(np.float64) - low) / (high - low), 0.0, 1.0)


def intensity_histogram(image: NDArray[np.floating]) -> NDArray[np.float64]:
    """Shares of a volume's voxels in NUM_BINS equal bins of its normalised intensities; they sum to 1."""
    counts, _ = np.histogram(normalised(image), bins=NUM_BINS, range=(0.0, 1.0))
    return counts / image.size


def histogram_distance(first: Sequence[NDArray[np.floating]], second: Sequence[NDArray[np.floating]]) -> float:
    """1-Wasserstein distance between the mean histograms of two groups of volumes; every volume weighs the same.

    Args:
        first: One histogram per volume: [bins] shares over [0, 1].
        second: The same for the other group; the number of cases may differ.
    """
    means = [np.mean(group, axis=0) for group in (first, second)]
    centres = (np.arange(len(means[0])) + 0.5) / len(means[0])
    return float(wasserstein_distance(centres, centres, *means))


def intensity(
    real: Sequence[NDArray[np.floating]], synthetic: Sequence[NDArray[np.floating]], rng: np.random.Generator
) -> Floored:
    """The distance of synthetic from real histograms in shares of the normalised range, next to real from real.

    Args:
        real: One histogram per volume: [bins] shares over [0, 1].
        synthetic: The same for synthetic volumes.
        rng: Draws the groups.
    """
    return against_floor(real, synthetic, histogram_distance, rng)
