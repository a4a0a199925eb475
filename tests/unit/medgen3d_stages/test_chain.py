from dataclasses import replace

import numpy as np
import pytest
import torch

from medgen3d_stages.catalogue import make_stage
from medgen3d_stages.chain import TrainedStage, draw_images, draw_masks, draw_pairs, refine
from medgen3d_stages.contract import DataSpec
from medgen3d_stages.image_sequence_generator.config import ImageSequenceGeneratorConfig
from medgen3d_stages.mask_generator.config import MaskGeneratorConfig
from medgen3d_stages.refiner.config import RefinerConfig

SPEC = DataSpec(num_labels=3, plane=(10, 12), spacing_mm=(1.0, 1.0, 1.0), max_depth=9)
SHAPES = [(9, 10, 12), (2, 7, 5), (5, 1, 12)]
CONFIGS = {
    "mask_generator": MaskGeneratorConfig(
        window=4, overlap=1, channels=(8, 16), attention_levels=(False, False), diffusion_steps=30, sampling_steps=3
    ),
    "image_sequence_generator": ImageSequenceGeneratorConfig(
        style=4, channels=(8, 16), spade_channels=4, discriminator_channels=4
    ),
    "refiner": RefinerConfig(
        channels=(8, 16),
        attention_levels=(False, False),
        spade_channels=4,
        crop=8,
        diffusion_steps=30,
        sampling_steps=3,
    ),
}
SEEDS = {name: [number, number + 10, number + 20] for number, name in enumerate(CONFIGS)}


@pytest.fixture
def stages(awaken) -> dict[str, TrainedStage]:
    torch.manual_seed(0)
    trained = {}
    for name, config in CONFIGS.items():
        stage = make_stage(name, config, SPEC)
        networks = stage.build()
        trained[name] = TrainedStage(stage, {part: awaken(networks[part]) for part in stage.sampled})
    return trained


def test_a_pair_has_the_shape_that_was_asked_for_and_a_mask_that_no_later_stage_changed(stages):
    pairs = draw_pairs(stages, SHAPES, SEEDS)
    masks = draw_masks(stages["mask_generator"], SHAPES, SEEDS["mask_generator"])
    assert [image.shape for image, _ in pairs] == SHAPES
    for (image, mask), drawn in zip(pairs, masks, strict=True):
        np.testing.assert_array_equal(mask, drawn)
        assert (image.dtype, mask.dtype) == (np.float32, np.uint8)
        assert np.abs(image).max() <= 1


@pytest.mark.parametrize("depth", [1, pytest.param(500, marks=pytest.mark.soak)])
def test_a_volume_of_one_slice_and_one_of_500_go_through_all_stages(depth):
    torch.manual_seed(0)
    made = {name: make_stage(name, config, replace(SPEC, max_depth=depth)) for name, config in CONFIGS.items()}
    stages = {}
    for name, stage in made.items():
        networks = stage.build()
        stages[name] = TrainedStage(stage, {part: networks[part] for part in stage.sampled})
    ((image, mask),) = draw_pairs(stages, [(depth, 10, 12)], {name: seeds[:1] for name, seeds in SEEDS.items()})
    assert image.shape == mask.shape == (depth, 10, 12)
    assert np.isfinite(image).all()


def test_the_chain_is_its_three_links_one_after_the_other(stages):
    masks = draw_masks(stages["mask_generator"], SHAPES, SEEDS["mask_generator"])
    images = draw_images(stages["image_sequence_generator"], masks, SEEDS["image_sequence_generator"])
    refined = refine(stages["refiner"], images, masks, SEEDS["refiner"])
    for (image, _), expected in zip(draw_pairs(stages, SHAPES, SEEDS), refined, strict=True):
        np.testing.assert_array_equal(image, expected)


def test_each_stage_has_a_seed_of_its_own(stages):
    before = draw_pairs(stages, SHAPES, SEEDS)
    after = draw_pairs(stages, SHAPES, SEEDS | {"refiner": [7, *SEEDS["refiner"][1:]]})
    assert [np.array_equal(one, two) for (one, _), (two, _) in zip(before, after, strict=True)] == [False, True, True]
    assert all(np.array_equal(one, two) for (_, one), (_, two) in zip(before, after, strict=True))


def test_given_slices_are_part_of_the_mask(stages):
    known = [{}, {1: np.full((7, 5), 2, np.uint8)}, {0: np.ones((1, 12), np.uint8)}]
    masks = draw_masks(stages["mask_generator"], SHAPES, [0, 1, 2], given=known)
    assert (masks[1][1] == 2).all()
    assert (masks[2][0] == 1).all()


def test_networks_are_put_in_evaluation_mode(stages):
    network = stages["mask_generator"].networks["denoiser"].train()
    draw_masks(stages["mask_generator"], SHAPES[:1], [0])
    assert not network.training


def test_as_many_seeds_as_cases_are_needed(stages):
    with pytest.raises(ValueError, match="zip"):
        draw_masks(stages["mask_generator"], SHAPES, [0, 1])
    with pytest.raises(ValueError, match="zip"):
        draw_masks(stages["mask_generator"], SHAPES, [0, 1, 2], given=[{}])
