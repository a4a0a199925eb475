import pytest

from medgen3d_stages.contract import DataSpec


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_labels": 1}, "at least 2 labels .* got 1"),
        ({"plane": (0, 8)}, r"at least 1 voxel, got plane \(0, 8\)"),
        ({"max_depth": 0}, "depth 0"),
    ],
)
def test_a_data_spec_that_no_stage_could_use_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        DataSpec(**{"num_labels": 2, "plane": (8, 8), "spacing_mm": (1.0, 1.0, 1.0), "max_depth": 3} | changes)
