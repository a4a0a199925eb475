import pytest

from medgen3d_stages.mask_generator.config import MaskGeneratorConfig


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"window": 8, "overlap": 0}, "overlap must lie between 1 and window - 1 = 7 slices, got 0"),
        ({"window": 4, "overlap": 4}, "window - 1 = 3 slices, got 4"),
        ({"channels": (8, 16)}, "2 levels of channels but 3 attention_levels"),
        ({"channels": (), "attention_levels": ()}, "one or more"),
        ({"channels": (8, 12, 16)}, r"multiples of 8 .* got \(8, 12, 16\)"),
        ({"channels": (8, 0, 16)}, r"multiples of 8 .* got \(8, 0, 16\)"),
        ({"patch": 0}, "patch and num_res_blocks must be at least 1, got 0"),
        ({"num_res_blocks": 0}, "at least 1, got 2 and 0"),
        ({"mode_probabilities": (0.5, 0.5, 0.5)}, "sum to 1"),
        ({"mode_probabilities": (-0.5, 1.0, 0.5)}, "sum to 1"),
        ({"scattered_probability": 1.5}, "between 0 and 1, got 1.5"),
        ({"diffusion_steps": 0}, "diffusion_steps must be at least 1 step, got 0"),
        ({"diffusion_steps": 1000, "sampling_steps": 0}, "between 1 and 1000, got 0"),
        ({"diffusion_steps": 20, "sampling_steps": 21}, "between 1 and 20, got 21"),
        ({"guidance": -1.0}, "must not be negative"),
        ({"cross_entropy_weight": -1.0}, "must not be negative"),
    ],
)
def test_an_option_out_of_range_is_refused_with_what_is_allowed(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        MaskGeneratorConfig(**changes)
