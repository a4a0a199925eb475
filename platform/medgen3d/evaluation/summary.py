"""Numbers that sum up labelled volumes, and how far two groups of volumes lie apart. Pure: arrays in, numbers out."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from medgen3d.evaluation.mask_measures import label_components

NUM_BINS = 256
NUM_SPLITS = 20
PERCENTILES = (0.5, 99.5)


class CaseSummary(NamedTuple):
    """What is kept of one case.

    num_voxels: int64 [K], voxels per label, background first.
    num_components: int64 [K], 6-connected components per label; the background's are counted too.
    histogram: float64 [NUM_BINS], shares of the case's voxels.
    """

    num_voxels: NDArray[np.int64]
    num_components: NDArray[np.int64]
    histogram: NDArray[np.float64]


class IntensityDistance(NamedTuple):
    """How far intensities lie apart.

    distance: 1-Wasserstein distance between synthetic and real, in shares of the normalised range.
    floor: The same between real and real; None where there is but one real case.
    num_per_side: Cases on each side of every comparison.
    """

    distance: float
    floor: float | None
    num_per_side: int


def summarise(image: NDArray[np.floating], mask: NDArray[np.integer], num_labels: int) -> CaseSummary:
    """Sum up one case.

    Args:
        image: [D, H, W] in any unit.
        mask: [D, H, W], contiguous ids 0..num_labels - 1.
        num_labels: K, background included.
    """
    num_voxels = np.bincount(mask.ravel(), minlength=num_labels).astype(np.int64)
    return CaseSummary(num_voxels, label_components(mask, num_labels), intensity_histogram(image))


def to_millilitres(num_voxels: NDArray[np.integer], spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Voxel counts -> millilitres, for voxels of `spacing_mm` along (D, H, W)."""
    return num_voxels.astype(np.float64) * (float(np.prod(spacing_mm)) / 1000.0)


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


def histogram_distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """1-Wasserstein distance between the mean histograms of two groups of volumes; every volume weighs the same.

    Args:
        first: [cases, bins] shares over [0, 1].
        second: The same for the other group; the number of cases may differ.
    """
    bins = first.shape[1]
    centres = (np.arange(bins) + 0.5) / bins
    return float(wasserstein_distance(centres, centres, first.mean(axis=0), second.mean(axis=0)))


def intensity_distance(
    real: NDArray[np.floating], synthetic: NDArray[np.floating], rng: np.random.Generator
) -> IntensityDistance:
    """Compare synthetic with real histograms, next to real with real, with equally many cases on every side.

    A distance between samples is never 0, and the smaller the samples, the larger it is. So the floor is the mean over
    NUM_SPLITS random pairs of disjoint groups of n real cases, and the distance is the mean over the same first groups
    against n synthetic cases, where n is the largest number that both kinds allow.

    Args:
        real: [cases, bins], one histogram per volume.
        synthetic: The same for synthetic volumes.
        rng: Draws the groups.
    """
    if len(real) < 2:
        return IntensityDistance(histogram_distance(real, synthetic), None, 1)
    num_per_side = min(len(real) // 2, len(synthetic))
    distances, floors = [], []
    for _ in range(NUM_SPLITS):
        order = rng.permutation(len(real))
        group, other = real[order[:num_per_side]], real[order[num_per_side : 2 * num_per_side]]
        drawn = synthetic[rng.permutation(len(synthetic))[:num_per_side]]
        floors.append(histogram_distance(group, other))
        distances.append(histogram_distance(group, drawn))
    return IntensityDistance(float(np.mean(distances)), float(np.mean(floors)), num_per_side)
