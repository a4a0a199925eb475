import numpy as np
import pytest

from medgen3d.core.labels import LabelTable
from medgen3d.evaluation.agreement import agreement, compare_masks

LABELS = LabelTable.from_mapping({1: "cube", 2: "plate"})
SPACING_MM = (2.0, 1.0, 1.0)


def cube(first: int, label: int = 1) -> np.ndarray:
    mask = np.zeros((12, 12, 12), np.uint8)
    mask[first : first + 4, 4:8, 4:8] = label
    return mask


def test_equal_masks_agree_wholly():
    found = compare_masks(cube(2), cube(2), 3, SPACING_MM)
    assert (found.dice[0], found.surface_dice[0], found.hd95_mm[0]) == (1, 1, 0)


def test_a_shift_of_one_slice_of_two_millimetres_costs_a_quarter_and_two_millimetres():
    found = compare_masks(cube(2), cube(3), 3, SPACING_MM)
    assert found.dice[0] == pytest.approx(2 * 48 / (64 + 64))  # 3 of 4 slices of 16 voxels are common
    assert found.hd95_mm[0] == pytest.approx(2.0)
    assert 0 < found.surface_dice[0] < 1  # the sides agree, top and bottom are 2 mm off


def test_a_label_that_neither_has_is_unknown_and_one_that_only_one_has_is_wrong():
    for found, expected in ((cube(2), cube(2, label=2)), (cube(2, label=2), cube(2))):
        measures = compare_masks(found, expected, 3, SPACING_MM)
        assert measures.dice.tolist() == [0, 0]
        assert measures.surface_dice.tolist() == [0, 0]
        assert np.isnan(measures.hd95_mm).all()
    assert np.isnan(compare_masks(cube(2), cube(2), 3, SPACING_MM).dice[1])


def test_the_gap_is_the_ceiling_minus_the_synthetic_mean():
    real = [compare_masks(cube(2), cube(2), 3, SPACING_MM)] * 3
    synthetic = [compare_masks(cube(2), cube(3), 3, SPACING_MM)] * 2
    section = agreement(real, synthetic, LABELS, np.random.default_rng(0), "a judge").section
    metrics = {metric.name: metric for metric in section.metrics}
    gap = metrics["agreement.dice_gap"]
    assert (gap.value, gap.interval, gap.num) == (pytest.approx(0.25), pytest.approx((0.25, 0.25)), 2)
    assert metrics["agreement.dice.cube"].value == pytest.approx(0.75)
    assert metrics["agreement.dice.plate"].value is None
    assert section.tables[0].rows[0][:3] == ["cube", "1.000 ± 0.000", "0.750 ± 0.000"]


def test_shuffled_masks_destroy_agreement():
    masks = [np.roll(cube(2), shift, axis=1) for shift in (-4, 0, 4)]
    right = [compare_masks(mask, mask, 3, SPACING_MM) for mask in masks]
    shuffled = [
        compare_masks(mask, other, 3, SPACING_MM) for mask, other in zip(masks, masks[1:] + masks[:1], strict=True)
    ]
    section = agreement(right, shuffled, LABELS, np.random.default_rng(0), "a judge").section
    assert section.metrics[0].value == pytest.approx(1.0)
