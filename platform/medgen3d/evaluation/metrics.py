"""Metrics that compare a measure of the synthetic cases with the same measure of the real ones."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from medgen3d.artifacts.report_parts import Metric
from medgen3d.evaluation.real_floor import Floored, against_floor, bootstrap_interval

Measures = NDArray[np.floating[Any]]
Distance = Callable[[Sequence[Any], Sequence[Any]], float]


def distance_metric(
    name: str,
    title: str,
    groups: tuple[Measures, Measures],
    rng: np.random.Generator,
    *,
    unit: str = "",
    note: str = "",
    distance: Distance = wasserstein_distance,
) -> Metric:
    """The distance of two groups of cases next to its floor; cases whose measure holds a NaN are left out.

    Args:
        name: Of the metric.
        title: Of the metric.
        groups: Measures of the real and of the synthetic cases, [cases, ...] each, NaN where a case has none.
        rng: Draws the groups.
        unit: Of the measure.
        note: Of the metric.
        distance: Of two groups of measures; by default the 1-Wasserstein distance, for one number per case.
    """
    real, synthetic = map(known_only, groups)
    if not len(real) or not len(synthetic):
        return _missing(name, title, real, unit)
    found = against_floor(list(real), list(synthetic), distance, rng)
    if found.floor == 0:
        note = f"{note} Real cases do not differ in it: the floor is 0, and there is no ratio.".strip()
    return floored_metric(name, title, found, unit=unit, note=note)


def floored_metric(name: str, title: str, found: Floored, *, unit: str = "", note: str = "") -> Metric:
    """A distance that `against_floor` has measured, as a metric."""
    return Metric(
        name=name,
        title=title,
        value=found.value,
        floor=found.floor,
        interval=(found.low, found.high),
        num=found.num_per_side,
        unit=unit,
        note=note,
    )


def difference_metric(
    name: str,
    title: str,
    groups: tuple[Measures, Measures],
    rng: np.random.Generator,
    *,
    absolute: bool = False,
    unit: str = "",
) -> Metric:
    """The mean over all synthetic cases minus that over all real ones, with a bootstrap interval.

    Args:
        name: Of the metric.
        title: Of the metric.
        groups: Measures of the real and of the synthetic cases, [cases] each; cases with a NaN are left out.
        rng: Draws the resamples.
        absolute: Without its sign.
        unit: Of the measure.
    """
    real, synthetic = map(known_only, groups)
    if not len(real) or not len(synthetic):
        return _missing(name, title, real, unit)

    def statistic(of_real: Measures, of_synthetic: Measures) -> float:
        difference = float(of_synthetic.mean() - of_real.mean())
        return abs(difference) if absolute else difference

    return Metric(
        name=name,
        title=title,
        value=statistic(real, synthetic),
        interval=bootstrap_interval((real.tolist(), synthetic.tolist()), statistic, rng),
        num=len(synthetic),
        num_of=f"synthetic cases, {len(real)} real",
        unit=unit,
    )


def known_only(measures: Measures) -> Measures:
    """The cases whose measure is known: those without a NaN."""
    return measures[np.isfinite(measures).reshape(len(measures), -1).all(axis=1)]


def _missing(name: str, title: str, real: Measures, unit: str) -> Metric:
    kind = "synthetic" if len(real) else "real"
    return Metric(name=name, title=title, value=None, num=0, unit=unit, note=f"It was found in no {kind} case.")
