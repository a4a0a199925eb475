"""What a stage's config calls options of sampling: real options, all of those and only those that training ignores."""

import dataclasses

import numpy as np
import pytest
import torch

from medgen3d_stages.arrays import Example
from medgen3d_stages.catalogue import STAGE_NAMES, config_type, make_stage
from medgen3d_stages.contract import DataSpec
from medgen3d_stages.image_sequence_generator.config import ImageSequenceGeneratorConfig
from medgen3d_stages.mask_generator.config import MaskGeneratorConfig
from medgen3d_stages.refiner.config import RefinerConfig
from medgen3d_stages.segmenter.config import SegmenterConfig

SPEC = DataSpec(num_labels=3, plane=(8, 16), spacing_mm=(1.0, 1.0, 1.0), max_depth=6)
CONFIGS = {
    "mask_generator": MaskGeneratorConfig(window=4, channels=(8,), attention_levels=(False,)),
    "image_sequence_generator": ImageSequenceGeneratorConfig(style=4, channels=(8, 8), spade_channels=8),
    "refiner": RefinerConfig(channels=(8,), attention_levels=(False,), spade_channels=8, crop=8),
    "segmenter": SegmenterConfig(channels=8, num_res_blocks=(1, 1), patch=(4, 8, 8)),
}
OTHER = {
    "mask_generator": {"overlap": 1, "sampler": "ddpm", "sampling_steps": 3, "guidance": 2.0},
    "image_sequence_generator": {"style_spread": 2.0},
    "refiner": {
        "start": 0.9,
        "end": 0.1,
        "sampling_steps": 5,
        "guidance": 2.0,
        "fusion": "average",
        "slice_batch": 1,
    },
    "segmenter": {"overlap": 0.75},
}
"""Another value for every option of sampling."""


def example() -> Example:
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 3, (6, 8, 16)).astype(np.uint8)
    return Example(image=mask.astype(np.float32) - 1, mask=mask, box=(0, 8, 0, 16))


def trained_on(name, config):
    """Everything that training computes at one step: the example, and each turn's losses from fresh networks."""
    stage = make_stage(name, config, SPEC)
    torch.manual_seed(0)
    networks = stage.build()
    for network in networks.values():
        for parameter in network.parameters():  # fresh last layers are zero, and hide what lies before them
            parameter.detach().add_(0.1 * torch.randn(parameter.shape))
    batch = {key: value[None] for key, value in stage.cut(example(), np.random.default_rng(0)).items()}
    losses = [
        stage.loss(turn, networks, batch, torch.Generator().manual_seed(0), 0.5)["total"].item() for turn in stage.turns
    ]
    return [value.tolist() for value in batch.values()], losses


@pytest.mark.parametrize("name", STAGE_NAMES)
def test_every_option_of_sampling_is_an_option_of_the_stage(name):
    known = [field.name for field in dataclasses.fields(config_type(name))]
    assert set(config_type(name).SAMPLING_FIELDS) <= set(known)
    assert set(config_type(name).SAMPLING_FIELDS) == OTHER.get(name, {}).keys()


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in OTHER for option in OTHER[name]])
def test_training_ignores_every_option_of_sampling(name, option):
    changed = dataclasses.replace(CONFIGS[name], **{option: OTHER[name][option]})
    assert changed != CONFIGS[name]
    assert trained_on(name, changed) == trained_on(name, CONFIGS[name])


def test_the_comparison_tells_an_option_of_training():
    changed = dataclasses.replace(CONFIGS["refiner"], diffusion_steps=100)
    assert trained_on("refiner", changed) != trained_on("refiner", CONFIGS["refiner"])
