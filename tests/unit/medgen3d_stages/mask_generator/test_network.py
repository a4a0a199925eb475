import pytest
import torch

from medgen3d_stages.mask_generator.config import MaskGeneratorConfig
from medgen3d_stages.mask_generator.network import MaskDenoiser, position_features

CONFIG = MaskGeneratorConfig(window=3, overlap=1, channels=(8, 16), attention_levels=(False, True))


def inputs(num_labels: int, height: int, width: int) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    labels = torch.randn(2, num_labels, 3, height, width, generator=rng)
    ones = torch.ones(2, 1, 3, height, width)
    return [
        labels,
        labels,
        ones,
        ones,
        torch.rand(2, 3, generator=rng),
        torch.rand(2, generator=rng),
        torch.tensor([3, 9]),
    ]


def test_a_position_becomes_itself_and_two_waves():
    # 2 * 0.125 - 1; sin and cos of pi / 8 and of 4 pi / 8.
    features = position_features(torch.tensor([0.125]))[0]
    assert features.tolist() == pytest.approx([-0.75, 0.382683, 1.0, 0.923880, 0.0], abs=1e-5)


@pytest.mark.parametrize(("num_labels", "height", "width"), [(2, 18, 22), (4, 1, 5), (3, 8, 8)])
def test_planes_of_any_size_come_back_in_their_size(num_labels, height, width):
    features = MaskDenoiser(CONFIG, num_labels)(*inputs(num_labels, height, width))
    assert features.shape == (2, num_labels, 3, height, width)


def test_every_input_matters(awaken):
    network, given = awaken(MaskDenoiser(CONFIG, 2)), inputs(2, 8, 8)
    with torch.no_grad():
        logits = network(*given)
        for place in range(len(given)):
            changed = [*given[:place], given[place] + 1, *given[place + 1 :]]
            assert not torch.allclose(network(*changed), logits), f"input {place} is ignored"
