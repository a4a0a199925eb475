"""Agreement of image and mask as the judge sees it: Dice, surface Dice and Hausdorff distance per label.

On synthetic pairs this is alignment, since the judge knows real pairs only; the ceiling is what it reaches on real
cases that it was not trained on.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medgen3d.artifacts.plots import histogram_grid
from medgen3d.artifacts.report_parts import Cell, Metric, Picture, ReportSection, Table
from medgen3d.core.labels import LabelTable
from medgen3d.evaluation.judge import Judge
from medgen3d.evaluation.real_floor import bootstrap_interval
from medgen3d.evaluation.section_result import SectionResult

TOLERANCE_MM = 1.0
"""Surfaces closer than this agree, as in the Medical Segmentation Decathlon's surface Dice of the hippocampus."""
PLOT = "agreement.png"
MAX_PLOTTED = 12
_MEASURES = {"dice": "Dice", "surface_dice": "surface Dice", "hd95_mm": "HD95 [mm]"}


class AgreementMeasures(NamedTuple):
    """One case, per label without the background: float64 [K - 1]; NaN where mask and judge both lack the label.

    dice: 0 to 1.
    surface_dice: Share of both surfaces that lies within TOLERANCE_MM of the other.
    hd95_mm: 95th percentile of the distances between the surfaces; NaN also where only one of the two has the label.
    """

    dice: NDArray[np.float64]
    surface_dice: NDArray[np.float64]
    hd95_mm: NDArray[np.float64]


def measure_agreement(
    judge: Judge,
    image: NDArray[np.floating],
    mask: NDArray[np.integer],
    num_labels: int,
    spacing_mm: tuple[float, float, float],
) -> AgreementMeasures:
    """Compare a mask with what the judge sees.

    Args:
        judge: Trained on real pairs.
        image: [D, h, w] in [-1, 1].
        mask: [D, h, w], contiguous ids 0..num_labels - 1.
        num_labels: K, background included.
        spacing_mm: Along (D, H, W).
    """
    return compare_masks(judge.segment(image), mask, num_labels, spacing_mm)


def compare_masks(
    found: NDArray[np.integer],
    expected: NDArray[np.integer],
    num_labels: int,
    spacing_mm: tuple[float, float, float],
) -> AgreementMeasures:
    """Dice, surface Dice and HD95 (MONAI) per label of two masks [D, h, w]."""
    import torch

    from medgen3d_stages.monai_parts import compute_dice, compute_hausdorff_distance, compute_surface_dice

    hot = [
        torch.from_numpy(np.stack([each == label for label in range(num_labels)]))[None] for each in (found, expected)
    ]
    present = [each[0, 1:].flatten(1).any(dim=1).numpy() for each in hot]
    dice = compute_dice(*(each.float() for each in hot), include_background=False)[0].numpy().astype(np.float64)
    # MONAI gives NaN for a label that only the judge sees; nothing of it is right, so it is 0.
    dice[present[0] & ~present[1]] = 0.0
    surface_dice, hd95_mm = np.full((2, num_labels - 1), np.nan)
    surface_dice[present[0] ^ present[1]] = 0.0
    for label in np.flatnonzero(present[0] & present[1]):
        one = [each[:, label + 1 : label + 2].float() for each in hot]
        options = {"include_background": True, "spacing": spacing_mm}
        surface_dice[label] = float(compute_surface_dice(*one, class_thresholds=[TOLERANCE_MM], **options))
        hd95_mm[label] = float(compute_hausdorff_distance(*one, percentile=95, **options))
    return AgreementMeasures(dice, surface_dice, hd95_mm)


def agreement(
    real: Sequence[AgreementMeasures],
    synthetic: Sequence[AgreementMeasures],
    labels: LabelTable,
    rng: np.random.Generator,
    judge_name: str,
) -> SectionResult:
    """The section of the report.

    Args:
        real: Of held-out real cases: the ceiling.
        synthetic: Of synthetic cases.
        labels: Names of the labels.
        rng: Draws the bootstrap resamples.
        judge_name: What the report calls the judge.
    """
    dice = [np.stack([case.dice for case in cases]) for cases in (real, synthetic)]
    places = range(len(labels) - 1)
    metrics = [_gap(dice[0], dice[1], rng)] + [
        _per_label(measure, place, labels, real, synthetic, rng) for place in places for measure in _MEASURES
    ]
    columns = ["label"] + [f"{what}, {kind}" for what in _MEASURES.values() for kind in ("real", "synthetic")]
    rows = [[labels.titles[place + 1], *_cells(place, real, synthetic)] for place in places]
    about = (
        f"What {judge_name}, trained on real pairs only, finds in an image, against the image's mask. Real: held-out "
        f"cases, the ceiling. Surfaces agree within {TOLERANCE_MM:g} mm. The gap is the ceiling's mean Dice over "
        "labels minus that of the synthetic pairs; below 0 the synthetic pairs are easier to segment than real ones."
    )
    caption = f"At most {MAX_PLOTTED} labels, those with the lowest Dice on synthetic cases."
    alt = "For every label, histograms of Dice, surface Dice and HD95 over the real and over the synthetic cases."
    section = ReportSection(
        name="agreement",
        title="Agreement of image and mask",
        about=about,
        metrics=metrics,
        tables=[Table(title="Means over the cases", columns=columns, rows=rows)],
        pictures=[Picture(file=PLOT, caption=caption, alt=alt)],
    )
    return SectionResult(section=section, pictures={PLOT: _plot(labels, real, synthetic)})


def _plot(labels: LabelTable, real: Sequence[AgreementMeasures], synthetic: Sequence[AgreementMeasures]) -> bytes:
    means = {place: _values("dice", place, synthetic) for place in range(len(labels) - 1)}
    worst = sorted(means, key=lambda place: means[place].mean() if len(means[place]) else 1.0)[:MAX_PLOTTED]
    first, second = [
        [[_values(measure, place, cases) for measure in _MEASURES] for place in worst] for cases in (real, synthetic)
    ]
    return histogram_grid(first, second, [labels.titles[place + 1] for place in worst], list(_MEASURES.values()))


def _gap(real: NDArray[np.float64], synthetic: NDArray[np.float64], rng: np.random.Generator) -> Metric:
    title, cases = "Dice gap: held-out real minus synthetic", [_case_means(real), _case_means(synthetic)]
    if not all(len(each) for each in cases):
        return Metric(name="agreement.dice_gap", title=title, value=None, num=0, note="no case holds a label")
    return Metric(
        name="agreement.dice_gap",
        title=title,
        value=float(cases[0].mean() - cases[1].mean()),
        interval=bootstrap_interval(cases, _difference_of_means, rng),
        num=len(synthetic),
        num_of="synthetic cases",
        note=f"ceiling {cases[0].mean():.3f} over {len(real)} real cases",
    )


def _per_label(
    measure: str,
    place: int,
    labels: LabelTable,
    real: Sequence[AgreementMeasures],
    synthetic: Sequence[AgreementMeasures],
    rng: np.random.Generator,
) -> Metric:
    """A label's mean; the ceiling stands in the note, since a metric's floor is a distance."""
    name = f"agreement.{measure.removesuffix('_mm')}.{labels.keys[place + 1]}"
    title = f"{_MEASURES[measure].removesuffix(' [mm]')}, {labels.titles[place + 1]}"
    unit = "mm" if measure.endswith("_mm") else ""
    ceiling, values = (_values(measure, place, cases) for cases in (real, synthetic))
    if not len(values):
        return Metric(name=name, title=title, value=None, num=0, unit=unit, note="no synthetic case has the label")
    return Metric(
        name=name,
        title=title,
        value=float(values.mean()),
        interval=bootstrap_interval([values], np.mean, rng),
        num=len(values),
        num_of="synthetic cases with the label",
        unit=unit,
        note=f"held-out real cases: {ceiling.mean():.3f}" if len(ceiling) else "no real case has the label",
    )


def _cells(place: int, real: Sequence[AgreementMeasures], synthetic: Sequence[AgreementMeasures]) -> list[Cell]:
    found = [_values(measure, place, cases) for measure in _MEASURES for cases in (real, synthetic)]
    return [f"{values.mean():.3f} ± {values.std():.3f}" if len(values) else None for values in found]


def _values(measure: str, place: int, cases: Sequence[AgreementMeasures]) -> NDArray[np.float64]:
    return _known(np.array([getattr(case, measure)[place] for case in cases]))


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[~np.isnan(values)]


def _case_means(dice: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the labels that a case has; cases without any are left out."""
    return np.array([row[~np.isnan(row)].mean() for row in dice if not np.isnan(row).all()])


def _difference_of_means(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(first.mean() - second.mean())
