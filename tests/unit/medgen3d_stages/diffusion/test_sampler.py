"""The solvers where the truth is known: for data ~ N(MEAN, SPREAD^2) the perfect denoiser has a closed form."""

import itertools
import math

import pytest
import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from medgen3d_stages.diffusion.sampler import ddim_step, ddpm_step, denoise, dpm_step, half_log_snr
from medgen3d_stages.diffusion.schedule import cosine_signal_kept, even_steps

MEAN, SPREAD = 0.4, 0.3


def perfect_denoiser(signal_kept: Tensor):
    """E[x0 | xt] = MEAN + sqrt(ab) SPREAD^2 / (ab SPREAD^2 + 1 - ab) (xt - sqrt(ab) MEAN)."""

    def predict(noisy: Tensor, step: int) -> Tensor:
        kept = float(signal_kept[step])
        gain = math.sqrt(kept) * SPREAD**2 / (kept * SPREAD**2 + 1 - kept)
        return MEAN + gain * (noisy - math.sqrt(kept) * MEAN)

    return predict


def noisy_at(kept: float, normal: Tensor) -> Tensor:
    """xt ~ N(sqrt(ab) MEAN, ab SPREAD^2 + 1 - ab): the deterministic flow keeps each item's `normal` at every step."""
    return math.sqrt(kept) * MEAN + math.sqrt(kept * SPREAD**2 + 1 - kept) * normal


def transport_error(sampler: str, num_steps: int) -> float:
    """Largest distance from where the exact flow takes noise, over steps of equal length in lambda."""
    signal_kept = torch.linspace(-5, 5, num_steps + 1, dtype=torch.float64).flip(0).mul(2).sigmoid()
    normal = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    steps, predict = list(range(num_steps, -1, -1)), perfect_denoiser(signal_kept)
    end = denoise(noisy_at(float(signal_kept[-1]), normal), steps, signal_kept, predict, sampler, [])
    exact = predict(noisy_at(float(signal_kept[0]), normal), 0)
    return float((end - exact).abs().max())


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpm++", 2)])
def test_the_deterministic_samplers_follow_the_exact_flow_with_the_order_of_their_theory(sampler, order):
    errors = [transport_error(sampler, num_steps) for num_steps in (40, 80, 160)]
    orders = [math.log2(before / after) for before, after in itertools.pairwise(errors)]
    assert orders == pytest.approx([order, order], abs=0.3)
    assert errors[-1] < 0.01


def test_the_second_order_sampler_is_the_closer_one():
    assert transport_error("dpm++", 25) < transport_error("ddim", 25) / 3


@pytest.mark.parametrize(("sampler", "tolerance"), [("ddim", 0.07), ("dpm++", 0.02)])
def test_25_steps_of_the_cosine_schedule_follow_the_exact_flow_to_where_they_end(sampler, tolerance):
    kept, predict = cosine_signal_kept(1000).double(), perfect_denoiser(cosine_signal_kept(1000).double())
    normal = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    steps = even_steps(999, 25)
    end = denoise(noisy_at(float(kept[-1]), normal), steps, kept, predict, sampler, [])
    exact = predict(noisy_at(float(kept[steps[-1]]), normal), steps[-1])
    torch.testing.assert_close(end, exact, atol=tolerance * SPREAD * 2, rtol=0)


def test_ancestral_sampling_reproduces_mean_and_spread():
    kept, rng = cosine_signal_kept(1000), torch.Generator().manual_seed(0)
    noise = torch.randn(1, 20_000, generator=rng)
    drawn = denoise(noise, even_steps(999, 1000), kept, perfect_denoiser(kept), "ddpm", [rng])
    # Standard errors over 20,000 draws: 0.0021 of the mean, 0.5 % of the spread. The smaller of the two posterior
    # variances is used, exact for data without spread; its error vanishes with the number of steps.
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(drawn.std()) == pytest.approx(SPREAD, rel=0.03)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_a_denoiser_that_always_sees_one_volume_is_followed_there(sampler):
    kept = cosine_signal_kept(50)
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    target = torch.tensor([[1.0, -1.0], [-1.0, 0.5]])
    end = denoise(torch.ones(2, 2), even_steps(49, 10), kept, lambda noisy, step: target, sampler, generators)
    torch.testing.assert_close(end, target)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_every_step_may_be_visited(sampler):
    # The last steps of a long schedule are all clamped to one noise level: steps of length 0.
    kept = cosine_signal_kept(1000)
    assert kept[-1] == kept[-2]
    noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    end = denoise(noise, even_steps(999, 1000), kept, perfect_denoiser(kept), sampler, generators)
    assert end.isfinite().all()
    assert (end - MEAN).abs().max() < 6 * SPREAD


def test_only_the_ancestral_sampler_draws_noise_and_each_item_from_its_own_stream():
    kept, noise = cosine_signal_kept(20), torch.zeros(2, 4)

    def run(sampler: str, seeds: tuple[int, int]) -> Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return denoise(noise, even_steps(19, 5), kept, perfect_denoiser(kept), sampler, generators)

    assert torch.equal(run("ddim", (1, 2)), run("ddim", (3, 4)))
    one, two = run("ddpm", (1, 2)), run("ddpm", (1, 3))
    assert torch.equal(one[0], two[0])
    assert not torch.equal(one[1], two[1])


def test_one_ancestral_step_has_the_posterior_of_its_equations():
    # kept 0.2 -> 0.5: step share 0.4. Mean: sqrt(.5) * .6 / .8 * clean + sqrt(.4) * .5 / .8 * noisy
    # = 0.530330 * 1 + 0.395285 * 2; variance .5 / .8 * .6 = 0.375, its root 0.612372.
    step = ddpm_step(torch.tensor([2.0]), torch.tensor([1.0]), 0.2, 0.5, torch.tensor([1.0]))
    assert float(step) == pytest.approx(0.530330 + 0.790569 + 0.612372, abs=1e-5)


def test_the_first_dpm_step_is_a_ddim_step():
    noisy, clean = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(dpm_step(noisy, clean, 0.2, 0.5, None), ddim_step(noisy, clean, 0.2, 0.5))


def test_a_dpm_step_extrapolates_the_predictions_in_lambda():
    # Equal steps in lambda: the prediction is taken half a step ahead, 1.5 * now - 0.5 * before.
    noisy, clean, earlier = torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times = [-0.5, 0.0, 0.5]
    kept = [1 / (1 + math.exp(-2 * time)) for time in times]
    assert [half_log_snr(value) for value in kept] == pytest.approx(times)
    step = dpm_step(noisy, clean, kept[1], kept[2], (earlier, times[0]))
    torch.testing.assert_close(step, dpm_step(noisy, 1.5 * clean - 0.5 * earlier, kept[1], kept[2], None))


def monai_scheduler(kind: type, kept: Tensor, **options: object):
    """MONAI's scheduler on our schedule; it predicts the clean sample and clips nothing."""
    scheduler = kind(num_train_timesteps=len(kept), prediction_type="sample", clip_sample=False, **options)
    scheduler.alphas_cumprod = kept
    scheduler.alphas = kept / torch.cat([torch.ones(1), kept[:-1]])
    scheduler.betas = 1 - scheduler.alphas
    return scheduler


@pytest.mark.parametrize("step", [900, 500, 100])
def test_a_ddim_step_is_that_of_monai(step):
    kept = cosine_signal_kept(1000).double()
    scheduler = monai_scheduler(DDIMScheduler, kept)
    scheduler.set_timesteps(10)  # MONAI then steps down by 100
    noisy, clean = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected, _ = scheduler.step(clean, step, noisy, eta=0.0)
    ours = ddim_step(noisy, clean, float(kept[step]), float(kept[step - 100]))
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("step", [900, 500, 1])
def test_a_ddpm_step_is_that_of_monai(step):
    kept = cosine_signal_kept(1000).double()
    scheduler = monai_scheduler(DDPMScheduler, kept, variance_type="fixed_small")
    noisy, clean = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected, _ = scheduler.step(clean, step, noisy, generator=torch.Generator().manual_seed(7))
    noise = torch.randn(noisy.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    ours = ddpm_step(noisy, clean, float(kept[step]), float(kept[step - 1]), noise)
    torch.testing.assert_close(ours, expected)
