from dataclasses import replace

import numpy as np
import pytest
import torch

from medgen3d.config.training import Augmentation
from medgen3d.training.augmentation import augmented
from medgen3d.training.warped_volume import WarpedVolume
from medgen3d_stages.arrays import Example


def bent(size: float) -> Augmentation:
    return Augmentation(bend_mm=size)


def ramp(axis: int, side: int) -> Example:
    """A cube whose value is a hundredth of the index along one axis; its upper half carries the label 1."""
    places = np.broadcast_to(np.moveaxis(np.arange(side)[:, None, None], 0, axis), (side, side, side))
    image = (places / 100).astype(np.float32)
    return Example(image=image, mask=(places >= side / 2).astype(np.uint8), box=(0, side, 0, side))


def whole(example: Example) -> Example:
    return Example(image=example.image[:], mask=example.mask[:], box=example.box)


def test_the_smallest_displacements_change_nothing_and_without_any_the_case_is_left_as_it_is():
    example = ramp(1, 20)
    tiny = whole(augmented(example, (1.0, 1.0, 1.0), bent(1e-6), np.random.default_rng(0)))
    np.testing.assert_allclose(tiny.image, example.image, atol=1e-6)
    np.testing.assert_array_equal(tiny.mask, example.mask)
    assert augmented(example, (1.0, 1.0, 1.0), Augmentation(), np.random.default_rng(0)) is example


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("side", "spacing"), [(17, 2.0), (9, 4.0)])
def test_displacements_at_a_knot_have_the_wanted_size_in_millimetres(axis, side, spacing):
    # 17 voxels of 2 mm or 9 of 4 mm: three knots along each axis, so the middle voxel is one.
    middle = (side // 2,) * 3
    example = ramp(axis, side)
    moved = [
        augmented(example, (spacing,) * 3, bent(2.0), np.random.default_rng(seed)).image[middle] * 100 - side // 2
        for seed in range(300)
    ]
    assert np.std(moved) * spacing == pytest.approx(2.0, rel=0.15)
    assert np.mean(moved) * spacing == pytest.approx(0.0, abs=0.5)


def test_image_and_mask_move_together():
    example = ramp(2, 33)
    moved = whole(augmented(example, (1.0, 1.0, 1.0), bent(3.0), np.random.default_rng(1)))
    assert (moved.mask != example.mask).sum() > 300
    # Where the image was fetched from the upper half, by more than half a voxel, so was the mask.
    assert moved.mask[moved.image > 0.17 + 0.005].all()
    assert not moved.mask[moved.image < 0.16 - 0.005].any()


def test_padding_outside_the_case_stays_as_it_was():
    example = ramp(1, 20)
    framed = Example(image=example.image, mask=example.mask, box=(3, 17, 5, 20))
    moved = whole(augmented(framed, (1.0, 1.0, 1.0), bent(3.0), np.random.default_rng(2)))
    inside = np.zeros(framed.image.shape, dtype=bool)
    inside[:, 3:17, 5:20] = True
    np.testing.assert_array_equal(moved.image[~inside], framed.image[~inside])
    assert (moved.image[inside] != framed.image[inside]).mean() > 0.9
    # What lies beyond the box is not fetched into it: rows 3 to 16 only.
    assert 0.03 - 1e-6 <= moved.image[inside].min() <= moved.image[inside].max() <= 0.16 + 1e-6


def test_the_same_stream_bends_alike_and_leaves_the_case_alone():
    example = ramp(0, 20)
    before = example.image.copy()
    one, two, other = (
        whole(augmented(example, (1.0, 1.0, 1.0), bent(2.0), np.random.default_rng(seed))) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one.image, two.image)
    assert (one.image != other.image).any()
    np.testing.assert_array_equal(example.image, before)


@pytest.mark.parametrize("key", [np.s_[3:9], np.s_[:, 7, 4:15], np.s_[-1], np.s_[2:4, 0:20, 18:20], np.s_[5:5]])
def test_a_part_is_bent_as_it_is_in_the_whole(key):
    framed = Example(image=ramp(1, 20).image, mask=ramp(2, 20).mask, box=(3, 17, 5, 20))
    moved = augmented(framed, (1.0, 1.5, 1.0), bent(3.0), np.random.default_rng(2))
    np.testing.assert_allclose(moved.image[key], moved.image[:][key], atol=1e-5)
    assert (moved.mask[key] != moved.mask[:][key]).mean() < 0.002 if moved.mask[key].size else True  # halves may round
    assert moved.image[key].dtype == np.float32


def test_only_the_part_that_a_window_comes_from_is_read():
    read = []

    class Watched(np.ndarray):
        def __getitem__(self, key):
            read.append(key)
            return np.asarray(self)[key]

    example = ramp(0, 60)
    watched = Example(image=example.image.view(Watched), mask=example.mask, box=example.box)
    augmented(watched, (1.0, 1.0, 1.0), bent(2.0), np.random.default_rng(0)).image[20:24]
    assert all(part[0].stop - part[0].start < 24 for part in read)  # four slices, and six standard deviations each way


def test_a_flip_reverses_an_axis_exactly_in_half_of_the_cases():
    example = ramp(2, 21)
    seen = [
        whole(augmented(example, (2.0, 1.0, 1.0), Augmentation(flip_axes=("x",)), np.random.default_rng(seed)))
        for seed in range(40)
    ]
    flipped = [not np.array_equal(each.mask, example.mask) for each in seen]
    assert 10 < sum(flipped) < 30
    for each, turned in zip(seen, flipped, strict=True):
        step = -1 if turned else 1
        np.testing.assert_array_equal(each.mask, example.mask[:, :, ::step])
        np.testing.assert_allclose(each.image, example.image[:, :, ::step], atol=1e-5)


def test_turning_keeps_a_ball_in_millimetres_and_its_middle():
    z, y, x = np.meshgrid(np.arange(16) * 2.0 - 15, np.arange(31) - 15.0, np.arange(31) - 15.0, indexing="ij")
    ball = (z**2 + y**2 + x**2 < 11**2).astype(np.uint8)
    half = (ball * (x > 0)).astype(np.uint8)
    case = Example(image=half.astype(np.float32), mask=ball, box=(0, 31, 0, 31))
    turned = [
        whole(augmented(case, (2.0, 1.0, 1.0), Augmentation(rotation_degrees=180), np.random.default_rng(seed)))
        for seed in range(6)
    ]
    for each in turned:
        assert np.mean(each.mask != ball) < 0.05  # its surface alone; turned in voxels it would be over 0.1
    assert np.mean([np.mean((each.image > 0.5) != half) for each in turned]) > 0.04  # the half goes elsewhere


def test_zoom_changes_a_volume_by_its_third_power():
    z, y, x = np.meshgrid(*[np.arange(40) - 19.5] * 3, indexing="ij")
    ball = (z**2 + y**2 + x**2 < 12**2).astype(np.uint8)
    case = Example(image=ball.astype(np.float32), mask=ball, box=(0, 40, 0, 40))
    sizes = [
        whole(augmented(case, (1.0, 1.0, 1.0), Augmentation(zoom=0.2), np.random.default_rng(seed))).mask.sum()
        / ball.sum()
        for seed in range(40)
    ]
    assert 0.8**3 - 0.02 <= min(sizes) < 0.7
    assert 1.4 < max(sizes) <= 1.2**3 + 0.02


def test_contrast_and_brightness_change_within_their_range_and_no_label_does():
    case = Example(image=np.full((4, 4, 4), 0.5, np.float32), mask=np.ones((4, 4, 4), np.uint8), box=(0, 4, 0, 4))
    jittered = [
        augmented(case, (1.0, 1.0, 1.0), Augmentation(intensity_jitter=0.2), np.random.default_rng(seed))
        for seed in range(60)
    ]
    levels = [float(each.image[1:2].mean()) for each in jittered]
    assert 0.5 * 0.8 - 0.1 <= min(levels) < 0.46
    assert 0.54 < max(levels) <= 0.5 * 1.2 + 0.1
    assert all(each.mask is case.mask for each in jittered)
    bright = replace(case, image=np.ones((4, 4, 4), np.float32))
    assert (
        augmented(bright, (1.0,) * 3, Augmentation(intensity_jitter=0.9), np.random.default_rng(0)).image[:].max() <= 1
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_would_come_from_beyond_the_case_is_reflected_at_its_first_and_last_voxel(axis):
    side = 12
    places = np.broadcast_to(np.moveaxis(np.arange(side)[:, None, None], 0, axis), (side,) * 3)
    field = torch.full((3, 2, 2, 2), 0.0)
    field[axis] = 8.0
    volume = WarpedVolume(places.astype(np.float32), field, ((0, side),) * 3, labels=False)
    line = volume[:].transpose(axis, *[each for each in range(3) if each != axis])[:, 3, 3]
    np.testing.assert_allclose(line, [8, 9, 10, 11, 10, 9, 8, 7, 6, 5, 4, 3], atol=1e-5)
    labels = WarpedVolume(places.astype(np.uint16), field, ((0, side),) * 3, labels=True)[:]
    np.testing.assert_array_equal(labels, volume[:].round())
