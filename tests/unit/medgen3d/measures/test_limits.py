import numpy as np
import pytest

from medgen3d.core.labels import LabelTable
from medgen3d.measures.limits import beyond_limits, learn_limits

TABLE = LabelTable.from_mapping({3: "core", 9: "shell", 12: "never"})
SPACING_MM = (5.0, 10.0, 20.0)  # a voxel is 1 ml


def mask(num_core, *, with_shell=True, num_parts=1, num_holes=0):
    """A bar of core voxels, a shell of 4 voxels, further core voxels apart, and cavities in blocks of 26 voxels."""
    made = np.zeros((3, 40, 60), np.uint8)
    made[0, 0, :num_core] = 1
    for part in range(num_parts - 1):
        made[0, 4, 2 * part] = 1
    for hole in range(num_holes):
        made[:, 10:13, 4 * hole : 4 * hole + 3] = 1
        made[1, 11, 4 * hole + 1] = 0
    if with_shell:
        made[2, 30, :4] = 2
    return made


LIMITS = learn_limits([mask(8), mask(10, num_parts=2), mask(20, with_shell=False)], TABLE, SPACING_MM)


def test_limits_are_the_range_of_the_training_cases_and_what_they_have_at_most():
    core, shell = LIMITS.labels[3], LIMITS.labels[9]

    assert LIMITS.num_cases == 3
    assert core.volume_ml == pytest.approx((8, 20))
    assert (core.always_present, core.num_components, core.num_holes) == (True, 2, 0)
    assert shell.volume_ml == pytest.approx((4, 4))
    assert (shell.always_present, shell.num_components) == (False, 1)
    assert 12 not in LIMITS.labels


@pytest.mark.parametrize("num_core", [7, 8, 20, 25])  # 8 / 1.25 = 6.4 and 20 * 1.25 = 25
def test_a_mask_like_those_of_the_training_passes(num_core):
    assert beyond_limits(mask(num_core), LIMITS, TABLE, SPACING_MM) == {}
    assert beyond_limits(mask(num_core, with_shell=False), LIMITS, TABLE, SPACING_MM) == {}


@pytest.mark.parametrize(
    ("made", "reason", "sentence"),
    [
        (mask(0), "missing", "core is missing"),
        (mask(6), "volume", "core has 6 ml, expected 6.4 to 25"),
        (mask(26), "volume", "core has 26 ml, expected 6.4 to 25"),
        (mask(8, num_parts=3), "components", "core has 3 components, at most 2 in training"),
    ],
)
def test_a_mask_unlike_those_of_the_training_is_told_why(made, reason, sentence):
    assert beyond_limits(made, LIMITS, TABLE, SPACING_MM) == {reason: sentence}


def test_holes_count_and_several_reasons_are_told_at_once():
    found = beyond_limits(mask(8, num_parts=2, num_holes=2), LIMITS, TABLE, SPACING_MM)

    assert found["holes"] == "core has 2 holes, at most 0 in training"
    assert found["components"].startswith("core has 4 components")  # bar, part, two blocks
    assert found["volume"].startswith("core has 61 ml")  # 8 + 1 + 2 * 26
