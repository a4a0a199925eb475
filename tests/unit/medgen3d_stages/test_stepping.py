"""Samples that advance step by step: who joins or leaves in between changes nothing for the others."""

import dataclasses

import numpy as np
import pytest
import torch

from medgen3d_stages.arrays import batches
from medgen3d_stages.catalogue import make_stage
from medgen3d_stages.chain import TrainedStage
from medgen3d_stages.contract import DataSpec
from medgen3d_stages.image_sequence_generator.config import ImageSequenceGeneratorConfig
from medgen3d_stages.image_sequence_generator.sampler import ImageRequest
from medgen3d_stages.mask_generator.config import MaskGeneratorConfig
from medgen3d_stages.mask_generator.sampler import MaskRequest
from medgen3d_stages.refiner.config import RefinerConfig
from medgen3d_stages.refiner.sampler import RefineRequest

SPEC = DataSpec(num_labels=3, plane=(10, 12), spacing_mm=(2.0, 1.0, 1.0), max_depth=9)
SHAPES = [(9, 10, 12), (3, 7, 5), (6, 9, 12), (5, 10, 8)]
MASK = MaskGeneratorConfig(
    window=4, overlap=1, channels=(8, 16), attention_levels=(False, True), diffusion_steps=50, sampling_steps=4
)
REFINER = RefinerConfig(
    channels=(8, 16),
    attention_levels=(False, True),
    spade_channels=8,
    crop=8,
    diffusion_steps=50,
    sampling_steps=3,
    slice_batch=4,
)
CONFIGS = {
    "mask_generator, ddim": MASK,
    "mask_generator, ddpm": dataclasses.replace(MASK, sampler="ddpm"),
    "mask_generator, dpm++ and guidance": dataclasses.replace(MASK, sampler="dpm++", guidance=2.0),
    "image_sequence_generator": ImageSequenceGeneratorConfig(style=4, channels=(8, 16), spade_channels=8),
    "refiner, alternate": REFINER,
    "refiner, average": dataclasses.replace(REFINER, fusion="average"),
    "refiner, sequential": dataclasses.replace(REFINER, fusion="sequential"),
}


def make_items(name: str) -> list:
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, 3, shape).astype(np.uint8) for shape in SHAPES]
    images = [rng.uniform(-1, 1, shape).astype(np.float32) for shape in SHAPES]
    if name.startswith("mask"):
        given = {2: masks[2][2]}
        return [MaskRequest(shape=shape, given=given if shape[0] == 6 else {}) for shape in SHAPES]
    if name.startswith("image"):
        return [ImageRequest(mask=mask, style_seed=5 if mask.shape[0] == 6 else None) for mask in masks]
    return [RefineRequest(image=image, mask=mask) for image, mask in zip(images, masks, strict=True)]


@pytest.fixture(params=CONFIGS)
def trained(request, awaken) -> TrainedStage:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    stage = make_stage(request.param.partition(",")[0], CONFIGS[request.param], SPEC)
    networks = stage.build()
    return TrainedStage(stage, {part: awaken(networks[part]) for part in stage.sampled})


def alone(trained: TrainedStage, item, seed: int, width: int) -> np.ndarray:
    run = trained.begin(item, seed)
    while run.rows:
        trained.advance([run], width)
    return run.result()


@pytest.mark.parametrize("width", [1, 3])
def test_a_run_gives_the_same_bytes_alone_and_among_others_that_join_and_leave(trained, width):
    items = make_items(trained.stage.name)
    expected = [alone(trained, item, seed, width) for seed, item in enumerate(items)]
    waiting = [trained.begin(item, seed) for seed, item in enumerate(items)]
    runs, unfinished, step = list(waiting), [], 0
    while waiting or unfinished:
        if waiting and step % 2 == 0:
            unfinished.insert(0, waiting.pop(0))  # at another place of the batch than the ones before it
        trained.advance(unfinished, width)
        unfinished = [run for run in unfinished if run.rows]
        step += 1
        if step == 3:  # the first one is given up
            unfinished = [run for run in unfinished if run is not runs[0]]
    for run, sample in zip(runs[1:], expected[1:], strict=True):
        assert run.result().tobytes() == sample.tobytes()


def test_steps_of_all_at_once_are_what_bulk_sampling_does(trained):
    items = make_items(trained.stage.name)
    runs = [trained.begin(item, seed) for seed, item in enumerate(items)]
    while unfinished := [run for run in runs if run.rows]:
        trained.advance(unfinished)
    for run, sample in zip(runs, trained.sample(items, range(len(items))), strict=True):
        assert run.result().tobytes() == sample.tobytes()


def test_progress_grows_from_nothing_to_the_whole_and_never_falls(trained):
    for seed, item in enumerate(make_items(trained.stage.name)):
        run = trained.begin(item, seed)
        seen = [run.done]
        while run.rows:
            trained.advance([run], 2)
            seen.append(run.done)
        assert seen[0] == 0
        assert seen == sorted(seen)
        assert seen[-1] == run.total


def test_a_mask_is_worth_its_unknown_slices_times_the_steps(awaken):
    stage = make_stage("mask_generator", MASK, SPEC)
    trained = TrainedStage(stage, {"denoiser": awaken(stage.build()["denoiser"])})
    run = trained.begin(MaskRequest(shape=(6, 9, 12), given={2: np.zeros((9, 12), np.uint8)}), 0)
    trained.advance([run], 1)
    assert run.total == 5 * 4
    assert run.done == 3  # a step of the first window, which holds the known slice and three others


def test_a_batch_is_filled_up_with_its_last_item():
    assert list(batches("abcde", 2)) == [("ab", ["a", "b"]), ("cd", ["c", "d"]), ("e", ["e", "e"])]
    assert list(batches("abc", None)) == [("abc", ["a", "b", "c"])]
    assert list(batches("", 4)) == []
