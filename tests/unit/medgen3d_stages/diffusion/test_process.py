import pytest
import torch

from medgen3d_stages.diffusion.process import add_noise, clean_from_velocity, velocity
from medgen3d_stages.diffusion.schedule import cosine_signal_kept

KEPT = torch.tensor([0.64, 0.36])  # square roots: signal 0.8 and 0.6, noise 0.6 and 0.8


def test_noise_is_added_by_the_square_roots_of_the_shares():
    clean, noise = torch.tensor([[1.0, -1.0], [1.0, -1.0]]), torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    noisy = add_noise(clean, noise, torch.tensor([0, 1]), KEPT)
    # 0.8 * 1 + 0.6 * 2 = 2.0; 0.8 * -1 = -0.8; 0.6 * 1 + 0.8 * 2 = 2.2; 0.6 * -1 = -0.6
    torch.testing.assert_close(noisy, torch.tensor([[2.0, -0.8], [2.2, -0.6]]))


def test_velocity_is_noise_less_signal_by_the_crossed_shares():
    # 0.8 * 2 - 0.6 * 1 = 1.0
    torch.testing.assert_close(velocity(torch.ones(1), torch.full((1,), 2.0), torch.tensor([0]), KEPT), torch.ones(1))


@pytest.mark.parametrize("shape", [(4, 3), (4, 1, 5, 6), (4, 2, 3, 5, 6)])
def test_a_true_velocity_leads_back_to_the_clean_item_at_every_step(shape):
    kept, rng = cosine_signal_kept(1000), torch.Generator().manual_seed(0)
    clean, noise = torch.randn(shape, generator=rng), torch.randn(shape, generator=rng)
    step = torch.tensor([0, 300, 700, 999])
    noisy = add_noise(clean, noise, step, kept)
    restored = clean_from_velocity(noisy, velocity(clean, noise, step, kept), step, kept)
    torch.testing.assert_close(restored, clean, atol=1e-5, rtol=0)


def test_a_step_outside_the_schedule_is_refused():
    with pytest.raises(IndexError):
        add_noise(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([2]), KEPT)
