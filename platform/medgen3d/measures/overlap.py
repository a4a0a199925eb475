"""Overlap of two masks."""

import numpy as np

from medgen3d.measures.mask_measures import Mask


def mean_overlap(first: Mask, second: Mask, num_labels: int) -> float:
    """Mean Dice of two masks [D, h, w] of contiguous ids over the foreground labels that either has; 1 if none."""
    sizes = np.bincount(first.ravel(), minlength=num_labels) + np.bincount(second.ravel(), minlength=num_labels)
    shared = np.bincount(first[first == second].ravel(), minlength=num_labels)
    present = sizes[1:] > 0
    return float((2 * shared[1:][present] / sizes[1:][present]).mean()) if present.any() else 1.0
