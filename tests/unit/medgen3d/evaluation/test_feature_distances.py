import numpy as np
import pytest

from medgen3d.evaluation.feature_distances import frechet_distance, kernel_distance


def cases(num_cases, num_slices, num_features, seed=0):
    return list(np.random.default_rng(seed).normal(size=(num_cases, num_slices, num_features)))


@pytest.mark.parametrize("num_features", [3, 50])  # fewer, and more, than the 20 vectors
def test_the_fid_of_shifted_gaussians_is_the_squared_length_of_the_shift(num_features):
    group = cases(5, 4, num_features)
    shift = np.zeros(num_features)
    shift[:2] = 3, 4

    assert frechet_distance(group, [case + shift for case in group]) == pytest.approx(25)


@pytest.mark.parametrize("num_features", [3, 50])
def test_the_fid_of_scaled_gaussians_is_the_variance_of_what_the_scale_adds(num_features):
    group = cases(5, 4, num_features)
    pooled = np.concatenate(group)
    centred = [case - pooled.mean(axis=0) for case in group]

    # (1 + 9 - 2 * 3) times the variance: tr(S + 9 S - 2 (S 9 S)^(1/2))
    assert frechet_distance(centred, [3 * case for case in centred]) == pytest.approx(4 * pooled.var(0, ddof=1).sum())


def test_the_fid_of_two_known_gaussians_is_that_of_the_formula():
    cross = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])  # covariance diag(2, 8) / 3, mean 0
    turned = cross[:, ::-1]  # diag(8, 2) / 3: the root of the product is diag(4, 4) / 3

    assert frechet_distance([cross], [turned]) == pytest.approx((10 + 10 - 2 * 8) / 3)


@pytest.mark.parametrize("num_features", [3, 200])
def test_the_fid_of_identical_sets_is_0(num_features):
    group = cases(5, 4, num_features)
    assert frechet_distance(group, group) == pytest.approx(0, abs=1e-9)


def test_features_in_single_precision_lose_nothing():
    group = [1000 + case.astype(np.float32) for case in cases(5, 4, 3)]
    assert frechet_distance(group, [case + np.float32(1) for case in group]) == pytest.approx(3, rel=1e-4)


def test_the_kid_of_ones_and_zeros_is_that_of_the_kernel():
    ones, zeros = [np.ones((1, 4))] * 2, [np.zeros((1, 4))] * 2
    assert kernel_distance(ones, zeros) == pytest.approx(8 + 1 - 2 * 1)  # (1 + 1)^3, (0 + 1)^3, (0 + 1)^3


def test_the_kid_leaves_out_pairs_of_slices_of_one_case():
    group = [np.array([[1.0], [3.0]]), np.array([[1.0]])]  # between the cases: (1 + 1)^3 and (3 + 1)^3
    assert kernel_distance(group, [np.zeros((1, 1))] * 2) == pytest.approx((8 + 64) / 2 + 1 - 2 * 1)


def test_the_kid_is_unbiased_it_is_0_on_average_where_nothing_differs():
    def group(rng, shift):
        own = 0.5 * rng.normal(size=(6, 1, 3)) + shift  # slices of one case resemble one another
        return list(own + 0.05 * rng.normal(size=(6, 5, 3)))

    def mean_distance(shift):
        rng = np.random.default_rng(0)
        return np.mean([kernel_distance(group(rng, 0), group(rng, shift)) for _ in range(400)])

    assert mean_distance(0) == pytest.approx(0, abs=0.05)  # its standard error is 0.012
    assert mean_distance(0.5) > 0.8
