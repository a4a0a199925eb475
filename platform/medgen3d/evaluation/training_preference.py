"""Preference for training cases: are synthetic cases nearer to what was learnt than to as many cases that never were?

A generator that has memorised nothing draws cases that have no reason to be nearer to its training cases than to other
real ones. So for each case the nearest of n training cases is set against the nearest of n that were never trained on.
"""

from collections.abc import Sequence
from math import comb

import numpy as np
from numpy.typing import NDArray

from medgen3d.artifacts.report_parts import Metric
from medgen3d.evaluation.novelty import MEASURES
from medgen3d.evaluation.real_floor import bootstrap_interval
from medgen3d.measures.fingerprints import Likeness


def preference_metrics(
    synthetic: Sequence[Likeness], held_out: Sequence[Likeness], num_train: int, rng: np.random.Generator
) -> list[Metric]:
    """By image and by mask: the share of synthetic cases that are nearer to training cases; 0.5 is no preference.

    Args:
        synthetic: Likeness of each synthetic case to the training cases, then to the held-out ones.
        held_out: The same of each held-out case, in their order; what it is to itself does not count.
        num_train: Training cases.
        rng: Draws resamples.
    """
    metrics = []
    for measure in ("image", "mask"):
        wins = np.array([win_share(*_split(getattr(each, measure), num_train)) for each in synthetic])
        metrics.append(
            Metric(
                name=f"novelty.nearer_to_training.{measure}",
                title=f"Nearer to a training case than to an equal number never trained on, by {MEASURES[measure]}",
                value=float(wins.mean()),
                floor=_of_real(held_out, measure, num_train),
                interval=bootstrap_interval([wins], _mean, rng),
                num=len(wins),
                num_of="synthetic cases",
            )
        )
    return metrics


def win_share(train: NDArray[np.floating], new: NDArray[np.floating]) -> float:
    """How probable it is that the most similar training case is more similar than the most similar new case.

    As many training cases are drawn as there are new ones, or the other way round; the probability is over all draws.
    """
    if len(train) < len(new):
        return 1.0 - win_share(new, train)
    nearer = int((train > new.max()).sum())
    return 1.0 - comb(len(train) - nearer, len(new)) / comb(len(train), len(new))


def _mean(shares: NDArray[np.floating]) -> float:
    return float(np.mean(shares))


def _split(similarities: NDArray[np.floating], num_train: int) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    return similarities[:num_train], similarities[num_train:]


def _of_real(held_out: Sequence[Likeness], measure: str, num_train: int) -> float | None:
    """The same of the held-out cases, each against all others of them; None if there are fewer than two."""
    if len(held_out) < 2:
        return None
    shares = []
    for place, each in enumerate(held_out):
        train, new = _split(getattr(each, measure), num_train)
        shares.append(win_share(train, np.delete(new, place)))
    return float(np.mean(shares))
