import pytest
import torch

from medgen3d_stages.contract import DataSpec
from medgen3d_stages.image_sequence_generator.config import ImageSequenceGeneratorConfig
from medgen3d_stages.image_sequence_generator.stage import ImageSequenceGenerator


@pytest.fixture
def stage() -> ImageSequenceGenerator:
    """A tiny stage for planes of 6 x 7 pixels and 12 labels, without discriminators of several scales."""
    config = ImageSequenceGeneratorConfig(
        history=2,
        style=4,
        channels=(8, 16),
        spade_channels=4,
        discriminator_channels=4,
        num_scales=2,
        num_layers=1,
        window=3,
        style_slices=3,
    )
    return ImageSequenceGenerator(config, DataSpec(num_labels=12, plane=(6, 7), spacing_mm=(1, 1, 1), max_depth=9))


@pytest.fixture
def copying_networks(stage: ImageSequenceGenerator) -> dict[str, torch.nn.Module]:
    """Networks whose generator repeats the previous slice (o = 0, no flow), and makes 0 where there is none."""
    torch.manual_seed(0)
    networks = stage.build()
    with torch.no_grad():
        networks["generator"].heads.weight.zero_()
        networks["generator"].heads.bias.copy_(torch.tensor([0.0, 0.0, 0.0, -50.0]))
    return networks
