import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medgen3d.evaluation.diversity import MAX_SIDE, NUM_PAIRS, similarities, thumbnail


def smooth(seed, shape=(30, 34, 29)):
    image = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return np.clip(image / np.abs(image).max(), -1, 1)


def mean_similarity(images):
    return similarities([thumbnail(image) for image in images], np.random.default_rng(0)).mean()


def test_the_similarity_of_identical_volumes_is_1():
    assert mean_similarity([smooth(0)] * 3) == pytest.approx(1, abs=1e-5)


def test_variations_of_one_volume_are_more_alike_than_different_volumes():
    different = [smooth(seed) for seed in range(4)]
    variations = [0.8 * smooth(9) + 0.2 * image for image in different]

    assert mean_similarity(different) < 0.3
    assert mean_similarity(variations) > 0.7


def test_volumes_of_different_sizes_are_compared_around_their_centres():
    image = smooth(0, (36, 36, 36))
    trimmed = image[2:-2, 2:-2, 2:-2]

    assert mean_similarity([image, trimmed, trimmed]) > 0.95
    assert mean_similarity([image[4:], image[:-4], image[4:]]) < 0.9


@pytest.mark.parametrize("shape", [(3, 9, 40), (20, 20, 20), (64, 64, 64)])
def test_every_size_has_its_scales(shape):
    assert mean_similarity([smooth(0, shape)] * 2) == pytest.approx(1, abs=1e-5)


def test_only_the_long_axes_of_a_thumbnail_are_shortened_and_its_values_are_0_to_1():
    image = np.full((5, 2 * MAX_SIDE, 7), -1.0)
    image[:, MAX_SIDE:] = 1.0
    small = thumbnail(image)

    assert small.shape == (5, MAX_SIDE, 7)
    np.testing.assert_array_equal(small[0, :, 0], np.repeat([0.0, 1.0], MAX_SIDE // 2))


def test_the_number_of_pairs_is_bounded_and_every_pair_is_of_two_different_volumes():
    volumes = [thumbnail(np.full((8, 8, 8), level)) for level in np.linspace(-1, 1, 16)]  # 120 pairs
    found = similarities(volumes, np.random.default_rng(0))

    assert len(found) == NUM_PAIRS
    assert found.max() < 1


def test_a_single_volume_has_no_pairs():
    assert not len(similarities([thumbnail(smooth(0))], np.random.default_rng(0)))
