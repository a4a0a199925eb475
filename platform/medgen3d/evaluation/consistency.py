"""Consistency through the plane: along every axis masks should not jump and images not flicker from slice to slice."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import periodogram

from medgen3d.artifacts.plots import spectrum_plot
from medgen3d.artifacts.report_parts import Metric, Picture, ReportSection
from medgen3d.evaluation.metrics import distance_metric
from medgen3d.evaluation.section_result import SectionResult
from medgen3d.measures.mask_measures import Mask, ratio, slice_counts

VIEWS = ("axial", "coronal", "sagittal")  # slices stacked along D, H and W
NUM_BINS = 16
_LEAST_SHARE = 1e-6  # what an image without any power in a bin is taken to have there
_SPECTRA = "consistency_spectra.png"
_ABOUT = (
    "Neighbouring slices of a body resemble each other along every axis alike. Slice Dice is the mean Dice of a label "
    "between neighbouring slices of the mask. The step is the mean difference of neighbouring slices of the image over "
    "the image's standard deviation. The spectrum says how the power of these differences spreads over frequencies: "
    "flicker from slice to slice raises its right end along one axis only. Axial slices are stacked along D, coronal "
    "ones along H, sagittal ones along W. Each metric is a distance between synthetic and real cases next to the same "
    "between two halves of the real cases (floor): 1-Wasserstein for numbers, the mean difference of mean log10 "
    "spectra for spectra."
)


class ConsistencyMeasures(NamedTuple):
    """Measures of one pair along the axes (D, H, W); NaN where there is nothing to compare.

    slice_dice: [3], mean over neighbouring slices and the foreground labels that one of the two holds.
    step: [3], mean absolute difference of neighbouring slices over the image's standard deviation.
    spectrum: [3, NUM_BINS], log10 shares of the differences' power in equal bins from 0 to 0.5 cycles per slice.
    """

    slice_dice: NDArray[np.float64]
    step: NDArray[np.float64]
    spectrum: NDArray[np.float64]


def measure_consistency(image: NDArray[np.floating[Any]], mask: Mask, num_labels: int) -> ConsistencyMeasures:
    """Measure one pair.

    Args:
        image: [D, H, W] in any unit.
        mask: [D, H, W], contiguous ids 0..num_labels - 1.
        num_labels: K, background included.
    """
    differences = [np.diff(image, axis=axis) for axis in range(3)]
    steps = [np.abs(each).mean() if each.size else np.nan for each in differences]
    return ConsistencyMeasures(
        slice_dice=np.array([_slice_dice(mask, num_labels, axis) for axis in range(3)]),
        step=ratio(steps, image.std()),
        spectrum=np.stack([_spectrum(each, axis) for axis, each in enumerate(differences)]),
    )


def consistency(
    real: Sequence[ConsistencyMeasures],
    synthetic: Sequence[ConsistencyMeasures],
    rng: np.random.Generator,
) -> SectionResult:
    """Compare synthetic with real pairs, axis by axis.

    Args:
        real: At least one case.
        synthetic: At least one case.
        rng: Draws the groups.
    """
    all_real, all_synthetic = _stacked(real), _stacked(synthetic)
    section = ReportSection(
        name="consistency",
        title="Through-plane consistency",
        about=_ABOUT,
        metrics=[metric for axis in range(3) for metric in _metrics(all_real, all_synthetic, axis, rng)],
        pictures=[_caption()],
    )
    return SectionResult(
        section=section, pictures={_SPECTRA: spectrum_plot(all_real.spectrum, all_synthetic.spectrum, VIEWS)}
    )


def _stacked(cases: Sequence[ConsistencyMeasures]) -> ConsistencyMeasures:
    """All cases in one, each array with the cases in front."""
    return ConsistencyMeasures(*(np.stack(each) for each in zip(*cases, strict=True)))


def _slice_dice(mask: Mask, num_labels: int, axis: int) -> float:
    slices = np.moveaxis(mask, axis, 0)
    both = np.where(slices[1:] == slices[:-1], slices[1:], 0)  # the background, which is not counted
    counts = slice_counts(slices, num_labels, 0)
    overlap = slice_counts(both, num_labels, 0)
    dice = ratio(2 * overlap, counts[1:] + counts[:-1])[:, 1:]
    return float(np.nanmean(dice)) if np.isfinite(dice).any() else np.nan


def _spectrum(differences: NDArray[np.floating[Any]], axis: int) -> NDArray[np.float64]:
    """Log10 shares of power along the axis, mean over its lines, in bins that do not depend on the number of slices."""
    num_steps = differences.shape[axis]
    if not differences.any():
        return np.full(NUM_BINS, np.nan)
    _, power = periodogram(np.moveaxis(differences, axis, -1), window="hann", detrend=False)
    total = np.cumsum(power.reshape(-1, power.shape[-1]).mean(axis=0, dtype=np.float64))
    # A coefficient's power lies evenly between the middles towards its neighbours; so few slices fill all bins, too.
    ends = np.minimum(np.arange(len(total)) + 0.5, num_steps / 2) / num_steps
    edges = np.interp(np.linspace(0, 0.5, NUM_BINS + 1), [0, *ends], [0, *total])
    return np.log10(np.maximum(np.diff(edges) / total[-1], _LEAST_SHARE))


def _metrics(
    real: ConsistencyMeasures, synthetic: ConsistencyMeasures, axis: int, rng: np.random.Generator
) -> list[Metric]:
    """The three metrics of a view; the arrays have the cases in front."""
    view = VIEWS[axis]
    scalars = [
        distance_metric(
            f"consistency.{name}.{view}",
            f"{view}: {title}",
            (getattr(real, name)[:, axis], getattr(synthetic, name)[:, axis]),
            rng,
            unit=unit,
        )
        for name, title, unit in (
            ("slice_dice", "Dice of neighbouring slices", "Dice"),
            ("step", "step between neighbouring slices", "standard deviations"),
        )
    ]
    spectra = real.spectrum[:, axis], synthetic.spectrum[:, axis]
    title = f"{view}: spectrum of the steps"
    return [
        *scalars,
        distance_metric(
            f"consistency.spectrum.{view}", title, spectra, rng, unit="decades", distance=_spectral_distance
        ),
    ]


def _spectral_distance(first: Sequence[NDArray[np.float64]], second: Sequence[NDArray[np.float64]]) -> float:
    return float(np.abs(np.mean(first, axis=0) - np.mean(second, axis=0)).mean())


def _caption() -> Picture:
    return Picture(
        file=_SPECTRA,
        caption="Power of the differences of neighbouring slices; lines: means; bands: 90 % of the cases.",
        alt="One panel per view with the mean real and the mean synthetic spectrum and a band around each.",
    )
