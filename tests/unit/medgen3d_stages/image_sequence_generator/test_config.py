import pytest

from medgen3d_stages.image_sequence_generator.config import ImageSequenceGeneratorConfig


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"history": 0}, "history must be at least 1 slice, got 0"),
        ({"window": 2}, "window must be at least 3 slices .* got 2"),
        ({"channels": (8,)}, r"at least two multiples of 8, got \(8,\)"),
        ({"channels": (8, 12)}, "multiples of 8"),
        ({"channels": (0, 8)}, "multiples of 8"),
        ({"style": 0}, "style must be at least 1, got 0"),
        ({"style_spread": -0.5}, "style_spread must not be negative, got -0.5"),
        ({"style_slices": 0}, "style_slices must be at least 1"),
        ({"num_scales": 0}, "num_scales must be at least 1"),
        ({"num_layers": 0}, "num_layers must be at least 1"),
        ({"spade_channels": 0}, "spade_channels must be at least 1"),
        ({"discriminator_channels": 0}, "discriminator_channels must be at least 1"),
        ({"short_history_probability": 1.1}, "between 0 and 1"),
        ({"teacher_forced_share": -0.1}, "between 0 and 1"),
        ({"flow_weight": -1.0}, "loss weights must not be negative"),
    ],
)
def test_an_option_out_of_range_is_refused_with_what_is_allowed(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        ImageSequenceGeneratorConfig(**changes)
