import numpy as np
import pytest

from medgen3d.core.errors import ConfigError
from medgen3d.core.labels import LabelTable
from medgen3d.measures.targets import best_candidate, parse_target, unmet

TABLE = LabelTable.from_mapping({3: "left lung", 9: "tumour v1.5"})
SPACING_MM = (5.0, 10.0, 20.0)  # a voxel is 1 ml


def bar(num_voxels, label=1):
    made = np.zeros((1, 1, 50), np.uint8)
    made[0, 0, :num_voxels] = label
    return made


@pytest.mark.parametrize(
    ("text", "num_voxels", "met"),
    [
        ("left lung.volume_ml > 10", 11, True),
        ("left lung.volume_ml > 10", 10, False),
        ("left lung.volume_ml >= 10", 10, True),
        ("left lung.volume_ml<1e1", 9, True),
        ("left lung.components <= 0", 0, True),
        ("left lung.components <= 0", 3, False),
        ("left lung.holes < 1", 3, True),
        ("tumour v1.5.volume_ml < 0.5", 3, True),
    ],
)
def test_a_target_is_met_or_not(text, num_voxels, met):
    assert (unmet(bar(num_voxels), [parse_target(text, TABLE)], SPACING_MM) == []) is met


def test_the_best_candidate_has_the_smallest_relative_shortfall_in_sum():
    targets = [parse_target(text, TABLE) for text in ("left lung.volume_ml > 20", "tumour v1.5.volume_ml >= 4")]
    # Shortfalls: 10/20 + 4/4 = 1.5; 16/20 + 0 = 0.8; 0 + 1 = 1
    masks = [bar(10), np.concatenate([bar(4), bar(4, 2)]), bar(30)]
    assert best_candidate(masks, targets, SPACING_MM) == 1
    assert best_candidate([masks[0], masks[0]], targets, SPACING_MM) == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "left lung > 3",
        "right lung.volume_ml > 3",
        "left lung.colour > 3",
        "left lung.holes = 3",
        "left lung.holes > a",
    ],
)
def test_what_is_no_target_is_refused_with_what_there_is(text):
    with pytest.raises(ConfigError, match=r"a label of background, left lung, tumour v1\.5 and a measure of volume_ml"):
        parse_target(text, TABLE)
