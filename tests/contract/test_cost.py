"""The cost of a configuration as `medgen3d.recipes.cost` counts it: operations, calls and memory."""

from contextlib import nullcontext

import pytest
import torch

from medgen3d.config.experiment import CHAIN
from medgen3d.config.load import load_config
from medgen3d.recipes.cost import drawing_cost, make_empty_stage, training_cost
from medgen3d.recipes.counting import counted

SMOKE = load_config(presets=["smoke"])


def test_operations_and_the_most_memory_of_one_moment_are_counted():
    def work():
        left = torch.zeros(100, 50)  # 20 000 bytes
        product = left @ torch.zeros(50, 200)  # 40 000 and 80 000 bytes; 2 x 100 x 50 x 200 operations
        del left
        return product.sum()

    found = counted(work, nullcontext())
    assert found.tflop == pytest.approx(2e6 / 1e12)
    assert found.peak == 20_000 + 40_000 + 80_000


def test_in_bfloat16_products_take_half_the_memory_and_norms_take_that_of_float32():
    features = torch.nn.Conv2d(8, 8, 1, bias=False)
    norm = torch.nn.GroupNorm(8, 8, affine=False)
    given = torch.zeros(1, 8, 64, 64)  # 131 072 bytes, made before

    with torch.no_grad():
        assert counted(lambda: features(given)).peak == pytest.approx(
            131_072, rel=0.02
        )  # it and its result as bfloat16
        assert counted(lambda: norm(given.bfloat16())).peak == pytest.approx(65_536 + 2 * 131_072, rel=0.02)


@pytest.mark.parametrize("name", ["mask_generator", "refiner"])
def test_a_pair_of_twice_the_slices_costs_about_twice_the_operations(name: str):
    once, twice = (drawing_cost(name, SMOKE, (depth, 16, 16), 3) for depth in (40, 80))
    assert twice.tflop == pytest.approx(2 * once.tflop, rel=0.15)
    assert twice.host_bytes == 2 * once.host_bytes


def test_calls_are_those_of_the_sampler():
    masks, images, refined = (drawing_cost(name, SMOKE, (10, 16, 16), 3).calls for name in CHAIN)
    # Windows of 4 slices that overlap by 1: the first, then 3 new slices each, both ways at once; 4 steps each.
    assert masks in (4 * 2, 4 * 3)
    assert images == 6  # from slice 5 the other 5 upwards or 4 downwards, both ways at once
    assert refined == 2


def test_a_training_step_costs_more_for_a_larger_batch():
    name = "image_sequence_generator"  # two turns, each with networks of its own
    small, large = (
        training_cost(
            name, load_config(presets=["smoke"], overrides=[f"training.{name}.batch_size={size}"]), (8, 16, 16), 3
        )
        for size in (1, 4)
    )
    assert large.tflop == pytest.approx(4 * small.tflop, rel=0.1)
    assert large.peak > small.peak


def test_the_plane_is_that_of_ingest():
    assert make_empty_stage("refiner", SMOKE, (36, 51, 34), 3).spec.plane == (56, 40)
