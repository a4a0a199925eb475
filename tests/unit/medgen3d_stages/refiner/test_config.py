import pytest

from medgen3d_stages.refiner.config import RefinerConfig


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"channels": (8, 16)}, "2 levels of channels but 3 attention_levels"),
        ({"channels": (), "attention_levels": ()}, "one or more multiples of 8"),
        ({"channels": (8, 12, 16)}, "multiples of 8"),
        ({"num_res_blocks": 0}, "num_res_blocks must be at least 1, got 0"),
        ({"spade_channels": 0}, "spade_channels must be at least 1, got 0"),
        ({"crop": 0}, "crop must be at least 1, got 0"),
        ({"crop": 46}, "crop must be a multiple of 4, got 46"),
        ({"mask_dropout": 1.0}, r"mask_dropout must lie in \[0, 1\)"),
        ({"start": 0.0}, r"start in \(0, 1\]"),
        ({"start": 1.2}, r"start in \(0, 1\]"),
        ({"sampling_steps": 0}, "got 0"),
        ({"diffusion_steps": 20, "start": 0.35, "sampling_steps": 8}, "between 1 and 7, the steps from start .* got 8"),
        ({"end": 0.25, "sampling_steps": 52}, "between 1 and 51, the steps from start to end, got 52"),
        ({"end": -0.1}, "end must lie between 0 and start, got end -0.1 and start 0.3"),
        ({"end": 0.4}, "end must lie between 0 and start, got end 0.4 and start 0.3"),
        ({"start": 0.02}, "got end 0.035 and start 0.02; set refiner.end as well"),
        ({"start": 0.0001, "end": 0.0}, "start x diffusion_steps must be at least 1 step, got 0.0001 x 1000"),
        ({"diffusion_steps": 0}, "start x diffusion_steps must be at least 1 step, got 0.3 x 0"),
        ({"guidance": -0.1}, "guidance must not be negative"),
        ({"slice_batch": 0}, "slice_batch must be at least 1, got 0"),
    ],
)
def test_an_option_out_of_range_is_refused_with_what_is_allowed(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        RefinerConfig(**changes)
