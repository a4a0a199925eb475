"""The fast samplers draw what ancestral DDPM draws: DDIM and DPM-Solver++ at 25 steps against all 1000 steps.

A small denoiser learns pairs of slices that show an ellipse of random size with a core. What is compared is the
distribution of the volume of each label, by the 1-Wasserstein distance W1, which is in voxels: the mean distance
between the volumes of equal rank.

The tolerance is what sampling alone explains. If both samplers drew from one distribution, it would not matter which
volume came from which: so all volumes are pooled and split at random 1000 times, and W1 between the samplers must not
exceed the largest W1 of these splits. With 150 volumes per sampler that is about a sixth of the mean volume; a sampler
that loses the spread of the sizes, as DDIM with too few steps does, lies beyond it (the last test).
"""

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medgen3d.config.training import StageTraining
from medgen3d.training.loop import train
from medgen3d.training.state import TrainingState
from medgen3d_stages.arrays import Batch, Example
from medgen3d_stages.chain import TrainedStage, draw_masks
from medgen3d_stages.contract import DataSpec
from medgen3d_stages.mask_generator.config import MaskGeneratorConfig, Sampler
from medgen3d_stages.mask_generator.stage import MaskGenerator

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

SIDE, NUM_VOLUMES, TRAINING_STEPS = 8, 150, 400
SPEC = DataSpec(num_labels=3, plane=(SIDE, SIDE), spacing_mm=(1.0, 1.0, 1.0), max_depth=2)
CONFIG = MaskGeneratorConfig(  # one window is a whole volume, so that nothing but the sampler is compared
    window=2, overlap=1, channels=(16, 24), attention_levels=(False, False), mode_probabilities=(1.0, 0.0, 0.0)
)


def ellipse(rng: np.random.Generator) -> Example:
    """Two slices of an ellipse (label 1) with a core (label 2); the upper slice is a little smaller."""
    half_height, half_width = rng.uniform(1.2, 4.0, size=2)
    centre_y, centre_x = rng.uniform(3.2, 3.8, size=2)
    y, x = np.mgrid[:SIDE, :SIDE]
    radius = np.hypot((y - centre_y) / half_height, (x - centre_x) / half_width)
    slices = [(radius < rim).astype(np.uint8) + (radius < core) for rim, core in ((1.0, 0.6), (0.9, 0.5))]
    return Example(image=np.zeros((2, SIDE, SIDE), np.float32), mask=np.stack(slices), box=(0, SIDE, 0, SIDE))


def ellipse_batch(stage: MaskGenerator, rng: np.random.Generator) -> Batch:
    cut = [stage.cut(ellipse(rng), rng) for _ in range(64)]
    return {key: torch.stack([part[key] for part in cut]) for key in cut[0]}


def volumes(masks: list[NDArray[np.integer]]) -> NDArray[np.float64]:
    """[N, 2]: voxels of each label that is not background."""
    return np.array([[(mask == label).sum() for label in (1, 2)] for mask in masks], dtype=float)


def w1(one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.float64]:
    """[2], per label [voxels]."""
    return np.abs(np.sort(one, axis=0) - np.sort(two, axis=0)).mean(axis=0)


def largest_by_chance(one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.float64]:
    """[2], the largest W1 between two random halves of the pooled volumes, of 1000 splits."""
    rng, pooled = np.random.default_rng(0), np.concatenate([one, two])
    shuffled = (rng.permutation(pooled) for _ in range(1000))
    return np.max([w1(volumes_[: len(one)], volumes_[len(one) :]) for volumes_ in shuffled], axis=0)


@pytest.fixture(scope="module")
def networks() -> dict[str, torch.nn.Module]:
    stage, rng, device = MaskGenerator(CONFIG, SPEC), np.random.default_rng(0), torch.device("cpu")
    settings = StageTraining(
        steps=TRAINING_STEPS, learning_rate=3e-3, warmup_steps=20, ema_decay=0.99, precision="fp32"
    )
    state = TrainingState(stage, settings, seed=0, device=device)
    batches = (ellipse_batch(stage, rng) for _ in range(TRAINING_STEPS))
    train(stage, state, batches, settings, seed=0, device=device, after_step=lambda *_: True)
    return state.sampling_networks()


def draw(networks: dict[str, torch.nn.Module], sampler: Sampler, steps: int, seed: int) -> NDArray[np.float64]:
    stage = MaskGenerator(dataclasses.replace(CONFIG, sampler=sampler, sampling_steps=steps), SPEC)
    seeds = range(seed, seed + NUM_VOLUMES)
    return volumes(draw_masks(TrainedStage(stage, networks), [(2, SIDE, SIDE)] * NUM_VOLUMES, seeds))


@pytest.fixture(scope="module")
def ancestral(networks: dict[str, torch.nn.Module]) -> NDArray[np.float64]:
    return draw(networks, "ddpm", CONFIG.diffusion_steps, seed=10_000)


def test_the_small_model_has_learnt_sizes_that_differ(ancestral):
    # Otherwise agreement would mean nothing.
    rng = np.random.default_rng(1)
    real = volumes([ellipse(rng).mask for _ in range(NUM_VOLUMES)])
    np.testing.assert_allclose(ancestral.mean(axis=0), real.mean(axis=0), rtol=0.15)
    np.testing.assert_allclose(ancestral.std(axis=0), real.std(axis=0), rtol=0.35)


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_25_steps_draw_the_label_volumes_that_1000_ancestral_steps_draw(networks, ancestral, sampler):
    fast = draw(networks, sampler, steps=25, seed=20_000)
    assert (w1(fast, ancestral) <= largest_by_chance(fast, ancestral)).all()


def test_the_comparison_tells_a_sampler_that_loses_the_spread(networks, ancestral):
    hasty = draw(networks, "ddim", steps=1, seed=20_000)
    assert (w1(hasty, ancestral) > largest_by_chance(hasty, ancestral)).all()
