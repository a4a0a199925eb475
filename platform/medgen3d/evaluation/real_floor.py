"""The real-to-real floor: a distance of synthetic from real cases, next to the same distance between real cases.

A distance between samples is never 0, and the smaller the samples, the larger it is. So the floor is the mean over
NUM_SPLITS random pairs of disjoint groups of n real cases, and the distance is the mean over the same first groups
against n synthetic cases, where n is the largest number that both kinds allow.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

NUM_SPLITS = 20
NUM_RESAMPLES = 2000
Case = TypeVar("Case")


class Floored(NamedTuple):
    """A distance and its floor.

    value: Synthetic to real.
    floor: Real to real; None where there is but one real case.
    low, high: Hold 95 % of the distances over the splits.
    num_per_side: Cases on each side of every comparison.
    """

    value: float
    floor: float | None
    low: float
    high: float
    num_per_side: int


def against_floor(
    real: Sequence[Case],
    synthetic: Sequence[Case],
    distance: Callable[[Sequence[Case], Sequence[Case]], float],
    rng: np.random.Generator,
) -> Floored:
    """Compare synthetic with real cases, next to real with real, with equally many cases on every side.

    Args:
        real: At least one case, in whatever form `distance` takes.
        synthetic: At least one case.
        distance: Of two groups of cases.
        rng: Draws the groups.
    """
    if len(real) < 2:
        value = distance(real, synthetic)
        return Floored(value, None, value, value, 1)
    num_per_side = min(len(real) // 2, len(synthetic))
    distances, floors = [], []
    for _ in range(NUM_SPLITS):
        order = rng.permutation(len(real))
        group, other = _take(real, order[:num_per_side]), _take(real, order[num_per_side : 2 * num_per_side])
        drawn = _take(synthetic, rng.permutation(len(synthetic))[:num_per_side])
        floors.append(distance(group, other))
        distances.append(distance(group, drawn))
    low, high = np.quantile(distances, (0.025, 0.975))
    return Floored(float(np.mean(distances)), float(np.mean(floors)), float(low), float(high), num_per_side)


def bootstrap_interval(
    groups: Sequence[ArrayLike],
    statistic: Callable[..., float],
    rng: np.random.Generator,
) -> tuple[float, float]:
    """95 % percentile interval of a statistic of one or more independent groups of numbers, each resampled whole.

    Args:
        groups: At least one number in each.
        statistic: Called with one array per group.
        rng: Draws the resamples.
    """
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    found = [
        statistic(*(array[rng.integers(len(array), size=len(array))] for array in arrays)) for _ in range(NUM_RESAMPLES)
    ]
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def _take(cases: Sequence[Case], places: np.ndarray) -> list[Case]:
    return [cases[place] for place in places]
