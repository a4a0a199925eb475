import numpy as np
import pytest

from medgen3d.measures.overlap import mean_overlap


def test_the_overlap_is_the_mean_dice_of_the_labels_that_either_mask_has():
    first, second = np.array([[[0, 1, 1, 2]]]), np.array([[[0, 1, 0, 3]]])
    # label 1: 2 * 1 / (2 + 1); labels 2 and 3: 0; label 4: in neither
    assert mean_overlap(first, second, 5) == pytest.approx((2 / 3 + 0 + 0) / 3)


def test_masks_without_labels_agree():
    nothing = np.zeros((1, 2, 2), np.uint8)
    assert mean_overlap(nothing, nothing, 3) == 1
