"""Plausibility of masks: size, place, shape, parts and neighbours of every label, compared with real masks."""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medgen3d.artifacts.plots import histogram_grid, label_volume_plot
from medgen3d.artifacts.report_parts import Cell, Metric, Picture, ReportSection, Table
from medgen3d.core.labels import LabelTable
from medgen3d.evaluation.metrics import difference_metric, distance_metric, known_only
from medgen3d.evaluation.section_result import SectionResult
from medgen3d.measures.mask_measures import MaskMeasures, measure_mask, ratio

__all__ = ["MaskMeasures", "measure_mask", "plausibility"]  # a section's module gives both of its steps
NUM_WORST = 10
NUM_PLOTTED_LABELS = 12
_VOLUMES, _HISTOGRAMS = "plausibility_volumes.png", "plausibility_histograms.png"
_ABOUT = (
    "What the masks alone say: for every label its volume, place, shape, parts and neighbours. Unless a metric says "
    "otherwise it is the 1-Wasserstein distance between synthetic and real cases that have the label, next to the same "
    "between two halves of the real cases (floor). A volume is 0 where the label is absent. Parts and holes are "
    "6-connected; a hole is a cavity of one label, whatever fills it. Places are shares of the image's extent."
)


def plausibility(
    real: Sequence[MaskMeasures], synthetic: Sequence[MaskMeasures], labels: LabelTable, rng: np.random.Generator
) -> SectionResult:
    """Compare synthetic with real masks, label by label and pair by pair.

    Args:
        real: At least one case.
        synthetic: At least one case.
        labels: Of both.
        rng: Draws groups and resamples.
    """
    compared = _Compared(_stacked(real), _stacked(synthetic), labels)
    found = [*_of_labels(compared, rng), *_of_pairs(compared, rng)]
    plotted = _worst_labels(found, len(labels))
    section = ReportSection(
        name="plausibility",
        title="Plausibility of masks",
        about=_ABOUT,
        metrics=[each.metric for each in found],
        tables=[_worst(found), *_without_ratio(found), _per_label(compared)],
        pictures=_captions(compared, plotted),
    )
    return SectionResult(section=section, pictures=_pictures(compared, plotted))


class _Compared(NamedTuple):
    """Measures of all cases, each array with the cases in front."""

    real: MaskMeasures
    synthetic: MaskMeasures
    labels: LabelTable


class _Found(NamedTuple):
    """A metric, what it is about and which label; None where it is about a pair."""

    metric: Metric
    subject: str
    measure: str
    label: int | None


class _Measure(NamedTuple):
    """A number per label: name in the metrics, name for people, unit, and [cases, K] of all measures."""

    name: str
    title: str
    unit: str
    of: Callable[[MaskMeasures], NDArray[np.float64]]


_MEASURES = (
    _Measure("volume", "volume", "ml", lambda cases: cases.volume_ml),
    _Measure("centroid_d", "centre along D", "share", lambda cases: cases.centroid[..., 0]),
    _Measure("centroid_h", "centre along H", "share", lambda cases: cases.centroid[..., 1]),
    _Measure("centroid_w", "centre along W", "share", lambda cases: cases.centroid[..., 2]),
    _Measure("surface_to_volume", "surface / volume", "1/mm", lambda cases: cases.surface_to_volume),
    _Measure("components", "components", "", lambda cases: cases.num_components),
    _Measure("holes", "holes", "", lambda cases: cases.num_holes),
)
_PLOTTED = [measure for measure in _MEASURES if measure.name in ("volume", "surface_to_volume", "components")]


def _stacked(cases: Sequence[MaskMeasures]) -> MaskMeasures:
    return MaskMeasures(*(np.stack(each) for each in zip(*cases, strict=True)))


def _of_labels(compared: _Compared, rng: np.random.Generator) -> Iterator[_Found]:
    labels = compared.labels
    for label in range(1, len(labels)):
        key, title = labels.keys[label], labels.titles[label]
        for measure in _MEASURES:
            metric = distance_metric(
                f"plausibility.{measure.name}.{key}",
                f"{title}: {measure.title}",
                (measure.of(compared.real)[:, label], measure.of(compared.synthetic)[:, label]),
                rng,
                unit=measure.unit,
            )
            yield _Found(metric, title, measure.title, label)
        for metric in _differences(compared, label, rng):
            yield _Found(metric, title, "difference", label)


def _differences(compared: _Compared, label: int, rng: np.random.Generator) -> list[Metric]:
    """Synthetic minus real means; they have no floor, so the worst are not sought among them."""
    real, synthetic, labels = compared
    key, title = labels.keys[label], labels.titles[label]
    volumes = real.volume_ml[:, label], synthetic.volume_ml[:, label]
    return [
        difference_metric(
            f"plausibility.volume_difference.{key}",
            f"{title}: mean volume, (synthetic - real) / real",
            (ratio(volumes[0], volumes[0].mean()), ratio(volumes[1], volumes[0].mean())),
            rng,
        ),
        difference_metric(
            f"plausibility.components_difference.{key}",
            f"{title}: mean components, |synthetic - real|",
            (real.num_components[:, label], synthetic.num_components[:, label]),
            rng,
            absolute=True,
        ),
        difference_metric(
            f"plausibility.presence_difference.{key}",
            f"{title}: share of cases with it, synthetic - real",
            (np.sign(volumes[0]), np.sign(volumes[1])),
            rng,
        ),
    ]


def _of_pairs(compared: _Compared, rng: np.random.Generator) -> Iterator[_Found]:
    """Shared surface of labels that touch in any case, and order along D of those that occur together in a real one."""
    real, synthetic, labels = compared
    for first, second in combinations(range(1, len(labels)), 2):
        key = f"{labels.keys[first]}.{labels.keys[second]}"
        touching = _touching(real, first, second), _touching(synthetic, first, second)
        if any(np.nansum(shares) > 0 for shares in touching):
            title = f"{labels.titles[first]} and {labels.titles[second]}"
            metric = distance_metric(
                f"plausibility.adjacency.{key}", f"{title}: shared surface", touching, rng, unit="share"
            )
            yield _Found(metric, title, "shared surface", None)
        above = _above(real, first, second), _above(synthetic, first, second)
        if len(known_only(above[0])):
            title = f"{labels.titles[second]} above {labels.titles[first]}"
            note = f"Above in {_share_above(above[0])} of the real and {_share_above(above[1])} of the synthetic cases."
            metric = distance_metric(
                f"plausibility.order.{key}", f"{title}: centres along D", above, rng, unit="share", note=note
            )
            yield _Found(metric, title, "order along D", None)


def _touching(cases: MaskMeasures, first: int, second: int) -> NDArray[np.float64]:
    """Mean share of the two labels' surfaces at which they touch: [cases], NaN where one of them is absent."""
    return (cases.adjacency[:, first, second] + cases.adjacency[:, second, first]) / 2


def _above(cases: MaskMeasures, first: int, second: int) -> NDArray[np.float64]:
    """Distance of the second label's centre above the first's, in shares of D: [cases], NaN where one is absent."""
    return cases.centroid[:, second, 0] - cases.centroid[:, first, 0]


def _share_above(above: NDArray[np.float64]) -> str:
    known = known_only(above)
    return f"{np.mean(known > 0):.0%}" if len(known) else "none"


def _worst(found: list[_Found]) -> Table:
    ranked = sorted((each for each in found if each.metric.ratio is not None), key=_ratio_of, reverse=True)
    return Table(
        title="Worst",
        columns=["Label", "Measure", "Distance", "Floor", "× floor"],
        rows=[
            [each.subject, each.measure, each.metric.value, each.metric.floor, each.metric.ratio]
            for each in ranked[:NUM_WORST]
        ],
        note=f"The {NUM_WORST} distances that are largest next to their floor.",
    )


def _without_ratio(found: list[_Found]) -> list[Table]:
    """A table of the measures that differ in synthetic cases but never between real ones; none where nothing does."""
    rows: list[list[Cell]] = [
        [each.subject, each.measure, each.metric.value]
        for each in found
        if each.metric.floor == 0 and each.metric.value
    ]
    note = "Their floor is 0, so they have no ratio and are not among the worst."
    table = Table(
        title="Synthetic cases differ where real ones do not",
        columns=["Label", "Measure", "Distance"],
        rows=rows,
        note=note,
    )
    return [table] if rows else []


def _worst_labels(found: list[_Found], num_labels: int) -> list[int]:
    """The labels that are plotted: all where they are few, else those with the largest ratios; in the table's order."""
    largest = dict.fromkeys(range(1, num_labels), 0.0)
    for each in found:
        if each.label is not None:
            largest[each.label] = max(largest[each.label], _ratio_of(each))
    return sorted(sorted(largest, key=lambda label: -largest[label])[:NUM_PLOTTED_LABELS])


def _ratio_of(found: _Found) -> float:
    return found.metric.ratio or 0.0


def _per_label(compared: _Compared) -> Table:
    kinds = ("real", "synthetic")
    columns = [
        f"{title}, {kind}" for title in ("Volume [ml]", "Volume [voxels]", "Components", "Holes") for kind in kinds
    ]
    return Table(
        title="Labels",
        columns=["Label", "Id", *columns, *(f"Cases with it, {kind}" for kind in kinds)],
        rows=[_label_row(compared, label) for label in range(1, len(compared.labels))],
        note="Mean ± standard deviation: volumes over all cases, components and holes over those that have the label.",
    )


def _label_row(compared: _Compared, label: int) -> list[Cell]:
    real, synthetic, labels = compared
    cells: list[Cell] = [labels.titles[label], labels.original_ids[label]]
    for name in ("volume_ml", "num_voxels", "num_components", "num_holes"):
        cells += [_spread(getattr(cases, name)[:, label]) for cases in (real, synthetic)]
    return cells + [f"{np.count_nonzero(each.num_voxels[:, label])} of {len(each.num_voxels)}" for each in compared[:2]]


def _spread(values: NDArray[np.generic]) -> str | None:
    known = known_only(values.astype(np.float64))
    if not len(known):
        return None
    return " ± ".join(f"{each:,.0f}" if each >= 100 else f"{each:.3g}" for each in (known.mean(), known.std()))


def _captions(compared: _Compared, plotted: list[int]) -> list[Picture]:
    num_labels = len(compared.labels) - 1
    which = "" if len(plotted) == num_labels else f" The {len(plotted)} labels of {num_labels} that are worst by ratio."
    return [
        Picture(
            file=_VOLUMES,
            caption=f"Volume of each label in every case, as a share of its mean real volume; bars: means.{which}",
            alt="For every label one point per real and per synthetic case along an axis of relative volume.",
        ),
        Picture(
            file=_HISTOGRAMS,
            caption=f"Shares of cases over volume, surface / volume and components of each label.{which}",
            alt="One small histogram per label and measure, real cases filled and synthetic cases outlined.",
        ),
    ]


def _pictures(compared: _Compared, plotted: list[int]) -> dict[str, bytes]:
    real, synthetic, labels = compared
    titles = [labels.titles[label] for label in plotted]
    volumes = [dict(zip(titles, cases.volume_ml[:, plotted].T.tolist(), strict=True)) for cases in (real, synthetic)]
    grids = [
        [[known_only(measure.of(cases)[:, label]) for measure in _PLOTTED] for label in plotted]
        for cases in (real, synthetic)
    ]
    columns = [f"{measure.title} [{measure.unit}]" if measure.unit else measure.title for measure in _PLOTTED]
    return {
        _VOLUMES: label_volume_plot(volumes[0], volumes[1]),
        _HISTOGRAMS: histogram_grid(grids[0], grids[1], titles, columns),
    }
