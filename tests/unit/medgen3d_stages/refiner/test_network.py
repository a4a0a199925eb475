import pytest
import torch


@pytest.mark.parametrize(("height", "width"), [(4, 4), (6, 10), (2, 20)])
def test_the_velocity_has_the_size_of_the_slices(network, height, width):
    velocity = network(
        torch.randn(3, 1, height, width),
        torch.zeros(3, height, width, dtype=torch.int32),
        torch.arange(3),
        torch.tensor([0, 5, 99]),
    )
    assert velocity.shape == (3, 1, height, width)


def test_noisy_slice_mask_view_and_step_all_matter(network):
    rng = torch.Generator().manual_seed(0)
    shown = [
        torch.randn(1, 1, 8, 8, generator=rng),
        torch.randint(0, 2, (1, 8, 8), generator=rng),
        torch.tensor([0]),
        torch.tensor([10]),
    ]
    with torch.no_grad():
        velocity = network(*shown)
        for place in range(4):
            changed = [*shown[:place], shown[place] + 1, *shown[place + 1 :]]
            assert not torch.allclose(network(*changed), velocity), f"input {place} is ignored"
