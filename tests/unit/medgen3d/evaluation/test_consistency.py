"""Smooth bodies with flicker along one axis: only that axis's metrics may notice."""

import io

import numpy as np
import pytest
from PIL import Image

from medgen3d.evaluation.consistency import NUM_BINS, VIEWS, consistency, measure_consistency

EMPTY = np.zeros((4, 4, 4), dtype=np.uint8)


def smooth_case(seed, shape=(24, 26, 28)):
    """An image of waves that are a few times as long as the array, and a mask of a ball."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.linspace(0, 1, length) for length in shape), indexing="ij")
    image = sum(np.sin(2 * np.pi * rng.uniform(1, 3) * each + rng.uniform(0, 6)) for each in grid)
    radius = rng.uniform(0.25, 0.35)
    mask = sum((each - 0.5) ** 2 for each in grid) < radius**2
    return (image / 3).astype(np.float32), mask.astype(np.uint8)


def flicker(image):
    """Every other axial slice a little brighter."""
    return image + 0.5 * (np.arange(len(image)) % 2)[:, None, None]


def measures(cases):
    return [measure_consistency(image, mask, 2) for image, mask in cases]


def metrics(real, synthetic):
    findings = consistency(measures(real), measures(synthetic), np.random.default_rng(0))
    return {metric.name.removeprefix("consistency."): metric for metric in findings.section.metrics}


def test_slice_dice_is_the_mean_over_neighbours_and_labels_along_each_axis():
    # Along D: label 1 has 2, 1, 0 voxels: Dice 2/3 and 0; label 2 has 0, 1, 2, of which 1 stays: 0 and 2/3.
    # Along W both columns are alike but for one voxel of three in each label's row.
    mask = np.array([[[1, 1]], [[1, 2]], [[2, 2]]], dtype=np.uint8)
    dice = measure_consistency(np.zeros(mask.shape), mask, 3).slice_dice

    assert dice[0] == pytest.approx((2 / 3 + 0 + 0 + 2 / 3) / 4)
    assert np.isnan(dice[1])  # a single slice has no neighbour
    # Label 1: columns hold 2 and 1 voxels, 1 in common: 2/3; label 2: 1 and 2, 1 in common: 2/3.
    assert dice[2] == pytest.approx(2 / 3)


def test_equal_slices_have_dice_one_and_a_mask_without_labels_none():
    assert measure_consistency(np.zeros(EMPTY.shape), EMPTY + 1, 2).slice_dice == pytest.approx([1, 1, 1])
    assert np.isnan(measure_consistency(np.zeros(EMPTY.shape), EMPTY, 2).slice_dice).all()


def test_a_ramp_steps_by_its_slope_over_its_deviation_along_its_own_axis_only():
    # 0..3 along H: steps of 1, standard deviation sqrt(1.25).
    ramp = np.broadcast_to(np.arange(4.0)[None, :, None], (4, 4, 4))
    step = measure_consistency(ramp, EMPTY, 2).step

    assert step == pytest.approx([0, 1 / np.sqrt(1.25), 0])
    assert measure_consistency(5 * ramp + 7, EMPTY, 2).step == pytest.approx(step)  # no unit


def test_power_shares_sum_to_one_for_any_number_of_slices():
    for length in (2, 3, 4, 9, 33, 200):
        image = np.random.default_rng(length).normal(size=(length, 5, 5))
        spectrum = measure_consistency(image, np.zeros(image.shape, dtype=np.uint8), 2).spectrum
        assert (10**spectrum).sum(axis=1) == pytest.approx(np.ones(3), abs=1e-4)


def test_a_wave_has_its_power_in_the_bin_of_its_frequency():
    # 0.14 cycles per slice lie in bin 4 of 16 over 0..0.5 (0.125 to 0.156).
    wave = np.broadcast_to(np.sin(2 * np.pi * 0.14 * np.arange(120))[None, None, :], (3, 3, 120))
    spectrum = measure_consistency(wave, np.zeros(wave.shape, dtype=np.uint8), 2).spectrum

    assert np.argmax(spectrum[2]) == 4
    assert 10 ** spectrum[2, 4] > 0.7
    assert np.isnan(spectrum[:2]).all()  # no differences along the other axes


def test_white_noise_has_the_spectrum_of_a_difference():
    # Differencing multiplies power by 4 sin(pi f)^2, whose integral over a bin is known.
    noise = np.random.default_rng(0).normal(size=(64, 64, 64))
    edges = np.linspace(0, 0.5, NUM_BINS + 1)
    shares = np.diff(edges - np.sin(2 * np.pi * edges) / (2 * np.pi)) / 0.5
    spectrum = measure_consistency(noise, np.zeros(noise.shape, dtype=np.uint8), 2).spectrum

    np.testing.assert_allclose(10 ** spectrum[:, 1:], np.tile(shares[1:], (3, 1)), rtol=0.15)


def test_flicker_along_d_raises_the_axial_step_and_the_high_bins_of_the_axial_spectrum_only():
    image, mask = smooth_case(0)
    before, after = (measure_consistency(each, mask, 2) for each in (image, flicker(image)))

    assert after.step[0] > 1.5 * before.step[0]
    assert after.step[1:] * flicker(image).std() == pytest.approx(before.step[1:] * image.std())  # the same steps
    assert after.spectrum[0, -2:].min() > before.spectrum[0, -2:].max() + 1
    assert (after.spectrum[0, :4] < before.spectrum[0, :4]).all()
    np.testing.assert_allclose(after.spectrum[1:], before.spectrum[1:], atol=1e-3)


def test_synthetic_flicker_is_seen_in_the_axial_metrics_over_the_floor_and_nowhere_else():
    real, smooth = ([smooth_case(seed) for seed in seeds] for seeds in (range(12), range(12, 24)))
    alike = metrics(real, smooth)
    flickering = metrics(real, [(flicker(image), mask) for image, mask in smooth])

    assert flickering["step.axial"].ratio > 3 * alike["step.axial"].ratio
    assert flickering["spectrum.axial"].ratio > 3 * alike["spectrum.axial"].ratio
    for view in ("coronal", "sagittal"):
        assert flickering[f"spectrum.{view}"].value == pytest.approx(alike[f"spectrum.{view}"].value, rel=0.1)
        assert flickering[f"slice_dice.{view}"] == alike[f"slice_dice.{view}"]


def test_shuffled_slices_destroy_the_dice_of_neighbours():
    image, mask = smooth_case(0)
    shuffled = mask[np.random.default_rng(0).permutation(len(mask))]
    real = [smooth_case(seed) for seed in range(8)]

    before, after = (measure_consistency(image, each, 2).slice_dice for each in (mask, shuffled))
    assert after[0] < 0.6 * before[0]
    assert metrics(real, [(image, shuffled)] * 4)["slice_dice.axial"].ratio > 3


def test_identical_cases_are_nowhere_apart():
    every = metrics([smooth_case(0)] * 4, [smooth_case(0)] * 4)

    assert sorted(every) == sorted(f"{name}.{view}" for name in ("slice_dice", "step", "spectrum") for view in VIEWS)
    assert {(metric.value, metric.ratio) for metric in every.values()} == {(0, None)}


def test_constant_images_have_no_steps_to_compare():
    image, mask = smooth_case(0)
    every = metrics([(image, mask)] * 2, [(np.zeros_like(image), mask)] * 2)

    assert every["spectrum.axial"].value is None
    assert "no synthetic case" in every["spectrum.axial"].note
    assert every["slice_dice.axial"].value == 0


def test_the_picture_is_the_one_that_the_section_names_and_the_same_for_the_same_cases():
    cases = measures([smooth_case(seed) for seed in range(3)])
    first, second = (consistency(cases, cases[:2], np.random.default_rng(0)) for _ in range(2))

    assert [picture.file for picture in first.section.pictures] == list(first.pictures)
    assert all(Image.open(io.BytesIO(png)).format == "PNG" for png in first.pictures.values())
    assert first.pictures == second.pictures
