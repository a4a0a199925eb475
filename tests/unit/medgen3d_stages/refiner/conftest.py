import pytest
import torch

from medgen3d_stages.refiner.config import RefinerConfig
from medgen3d_stages.refiner.network import SliceDenoiser


@pytest.fixture
def config() -> RefinerConfig:
    return RefinerConfig(
        channels=(8, 16),
        attention_levels=(False, True),
        spade_channels=4,
        crop=8,
        diffusion_steps=100,
        start=0.35,
        sampling_steps=4,
        slice_batch=5,
    )


@pytest.fixture
def network(config: RefinerConfig, awaken) -> SliceDenoiser:
    """An untrained network that answers with something other than 0."""
    torch.manual_seed(0)
    return awaken(SliceDenoiser(config, num_labels=3))
