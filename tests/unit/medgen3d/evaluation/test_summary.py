import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgen3d.evaluation.summary import (
    NUM_BINS,
    histogram_distance,
    intensity_distance,
    intensity_histogram,
    normalised,
    summarise,
    to_millilitres,
)


def spike(at):
    """The histogram of a group of one volume whose voxels all lie in bin `at`."""
    shares = np.zeros((1, NUM_BINS))
    shares[0, at] = 1.0
    return shares


def test_eight_voxels_of_half_a_millimetre_cubed_are_a_thousandth_of_a_millilitre():
    assert to_millilitres(np.array([8]), (0.5, 0.5, 0.5)) == pytest.approx([0.001])
    assert to_millilitres(np.array([1000]), (5.0, 1.0, 0.2)) == pytest.approx([1.0])


def test_voxels_are_counted_for_every_label_also_for_one_that_is_absent():
    mask = np.array([[[0, 0, 2, 2, 2]]], dtype=np.uint8)
    np.testing.assert_array_equal(summarise(mask.astype(float), mask, 4).num_voxels, [2, 0, 3, 0])


def test_normalisation_takes_the_percentiles_to_zero_and_one_and_clips_beyond_them():
    image = np.arange(1001, dtype=float).reshape(7, 11, 13)  # percentile 0.5 is 5, percentile 99.5 is 995
    result = normalised(image).ravel()

    assert result[5] == pytest.approx(0)
    assert result[995] == pytest.approx(1)
    assert result[500] == pytest.approx(0.5)
    assert (result[0], result[1000]) == (0, 1)


def test_a_constant_volume_is_all_zero():
    assert not normalised(np.full((2, 3, 4), 7.0)).any()


@given(scale=st.floats(0.01, 1e6), offset=st.floats(-1e3, 1e3))
def test_units_do_not_matter(scale, offset):
    image = np.random.default_rng(0).integers(0, 50, size=(6, 7, 8)).astype(float)
    mean = (intensity_histogram(image) * np.arange(NUM_BINS)).sum()
    rescaled_mean = (intensity_histogram(image * scale + offset) * np.arange(NUM_BINS)).sum()
    assert rescaled_mean == pytest.approx(mean, abs=1)  # rounding may move a value over the edge of its bin


def test_shares_sum_to_one():
    assert intensity_histogram(np.random.default_rng(0).normal(size=(5, 6, 7))).sum() == pytest.approx(1)


def test_histograms_shifted_by_64_of_256_bins_are_a_quarter_apart():
    assert histogram_distance(spike(10), spike(74)) == pytest.approx(0.25)


def test_half_the_mass_moved_by_half_the_range_is_a_quarter():
    assert histogram_distance(np.vstack([spike(0), spike(128)]), spike(0)) == pytest.approx(0.25)


def test_every_volume_weighs_the_same_in_its_group():
    three_to_one = np.vstack([spike(0), spike(0), spike(0), spike(128)])
    assert histogram_distance(three_to_one, spike(0)) == pytest.approx(0.125)


def test_the_floor_of_identical_real_volumes_is_zero_and_the_distance_that_of_one_pair():
    result = intensity_distance(np.repeat(spike(0), 8, 0), np.repeat(spike(64), 3, 0), np.random.default_rng(0))

    assert result.floor == 0
    assert result.distance == pytest.approx(0.25)
    assert result.num_per_side == 3


def test_groups_are_as_large_as_both_kinds_allow_and_never_share_a_case():
    # Two cases in all: each split has one of each, so every floor is their distance of one quarter.
    real = np.vstack([spike(0), spike(64)])
    result = intensity_distance(real, np.repeat(spike(0), 9, 0), np.random.default_rng(0))

    assert result.num_per_side == 1
    assert result.floor == pytest.approx(0.25)


def test_synthetic_cases_drawn_like_the_real_ones_lie_at_the_floor():
    rng = np.random.default_rng(0)
    cases = np.stack([intensity_histogram(rng.gamma(rng.uniform(1, 4), size=(6, 6, 6))) for _ in range(160)])
    result = intensity_distance(cases[:120], cases[120:], np.random.default_rng(1))

    assert result.num_per_side == 40
    assert 0.5 < result.distance / result.floor < 2


def test_one_real_case_has_no_floor():
    assert intensity_distance(spike(0), spike(64), np.random.default_rng(0)) == (pytest.approx(0.25), None, 1)
