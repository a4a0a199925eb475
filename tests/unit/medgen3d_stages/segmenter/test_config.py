import pytest

from medgen3d_stages.segmenter.config import SegmenterConfig


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"channels": 12}, "channels must be a multiple of 8"),
        ({"num_res_blocks": (1,)}, "num_res_blocks must be at least two numbers"),
        ({"num_res_blocks": (1, 0)}, "num_res_blocks must be at least two numbers"),
        ({"patch": (40, 60, 48)}, "patch must be multiples of 8 of at least 16 voxels"),
        ({"patch": (8, 64, 48)}, "patch must be multiples of 8 of at least 16 voxels"),
        ({"foreground_share": 1.1}, "foreground_share must lie in"),
        ({"overlap": 1.0}, "overlap in"),
        ({"rotation_degrees": -1}, "rotation_degrees must lie in"),
        ({"zoom": 1.0}, "zoom and intensity_jitter in"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        SegmenterConfig(**changes)
