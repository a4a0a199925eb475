import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgen3d.evaluation.intensities import NUM_BINS, histogram_distance, intensity, intensity_histogram, normalised


def spike(at):
    """The histogram of a volume whose voxels all lie in bin `at`."""
    shares = np.zeros(NUM_BINS)
    shares[at] = 1.0
    return shares


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
    assert histogram_distance([spike(10)], [spike(74)]) == pytest.approx(0.25)


def test_half_the_mass_moved_by_half_the_range_is_a_quarter():
    assert histogram_distance([spike(0), spike(128)], [spike(0)]) == pytest.approx(0.25)


def test_every_volume_weighs_the_same_in_its_group():
    assert histogram_distance([spike(0), spike(0), spike(0), spike(128)], [spike(0)]) == pytest.approx(0.125)


def test_the_floor_of_identical_real_volumes_is_zero_and_the_distance_that_of_one_pair():
    found = intensity([spike(0)] * 8, [spike(64)] * 3, np.random.default_rng(0))

    assert found.floor == 0
    assert found.value == pytest.approx(0.25)
    assert found.num_per_side == 3


def test_synthetic_cases_drawn_like_the_real_ones_lie_at_the_floor():
    rng = np.random.default_rng(0)
    cases = [intensity_histogram(rng.gamma(rng.uniform(1, 4), size=(6, 6, 6))) for _ in range(160)]
    found = intensity(cases[:120], cases[120:], np.random.default_rng(1))

    assert found.num_per_side == 40
    assert 0.5 < found.value / found.floor < 2
