import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medgen3d.measures.fingerprints import GRID, describe_case, nearest


def case(seed, shape=(33, 48, 36)):
    """Smooth structures, and the two brightest kinds of them as labels."""
    image = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    return image.astype(np.float32), np.digitize(image, np.quantile(image, [0.7, 0.85])).astype(np.uint8)


def described(seed):
    return describe_case(*case(seed))


TRAIN = [described(seed) for seed in range(6)]


def changed(seed, change):
    image, mask = case(seed)
    return nearest(describe_case(change(image), change(mask), None), TRAIN)


def test_a_training_case_is_found_and_equals_itself():
    found = changed(4, lambda volume: volume)

    assert (found.image_case, found.mask_case) == (4, 4)
    assert found.image_correlation == pytest.approx(1)
    assert found.mask_dice == pytest.approx(1)


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
def test_a_flipped_training_case_is_found_and_equals_the_case(axes):
    found = changed(2, lambda volume: np.flip(volume, axes).copy())

    assert (found.image_case, found.mask_case) == (2, 2)
    assert found.image_correlation == pytest.approx(1)
    assert found.mask_dice == pytest.approx(1)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("by", [1, -1])
def test_a_training_case_shifted_by_a_voxel_is_found_close_to_the_case(axis, by):
    found = changed(3, lambda volume: np.roll(volume, by, axis))

    assert (found.image_case, found.mask_case) == (3, 3)
    assert found.image_correlation > 0.9
    assert found.mask_dice > 0.9


def test_a_shift_by_a_whole_place_of_the_grid_is_undone_exactly():
    image, mask = case(0, (GRID, GRID, GRID))
    shifted = [np.roll(volume, (1, -1, 1), (0, 1, 2)) for volume in (image, mask)]
    found = nearest(describe_case(*shifted, None), [describe_case(image, mask, None)])

    assert found.image_correlation == pytest.approx(1)
    assert found.mask_dice == pytest.approx(1)


def test_another_contrast_and_size_do_not_hide_a_copy():
    image, mask = case(5)
    larger = [np.repeat(volume, 2, axis=1) for volume in (500 * image + 20, mask)]
    found = nearest(describe_case(*larger, None), TRAIN)

    assert (found.image_case, found.mask_case) == (5, 5)
    assert found.image_correlation > 0.999
    assert found.mask_dice > 0.97


def test_a_new_case_is_far_from_all():
    found = nearest(described(99), TRAIN)

    assert found.image_correlation < 0.6
    assert found.mask_dice < 0.6


def test_dice_is_the_mean_over_the_labels_that_either_mask_has():
    flat = np.zeros((GRID, GRID, GRID), dtype=np.float32)
    one, other = (flat.astype(np.uint8) for _ in range(2))
    one[8:16, 8:16, 8:16] = 1
    other[8:16, 8:16, 8:16] = 1
    other[2:4, 2:4, 2:4] = 2  # Dice is 1 for the first label, 0 for the second

    assert nearest(describe_case(flat, one, None), [describe_case(flat, other, None)]).mask_dice == pytest.approx(0.5)
    assert nearest(describe_case(flat, 2 * one, None), [describe_case(flat, one, None)]).mask_dice == 0


def test_the_dice_of_a_box_and_three_such_boxes_is_one_half():
    flat = np.zeros((GRID, GRID, GRID), dtype=np.float32)
    one, other = (flat.astype(np.uint8) for _ in range(2))
    one[10:14, 10:14, 6:18] = 1
    other[10:14, 10:14, 6:18] = 1
    other[4:8, 10:14, 6:18] = other[16:20, 10:14, 6:18] = 1

    # 192 places against three times as many: 2 * 192 / (192 + 576)
    assert nearest(describe_case(flat, one, None), [describe_case(flat, other, None)]).mask_dice == pytest.approx(0.5)


def test_masks_without_any_label_are_equal_and_constant_images_have_no_correlation():
    flat = np.zeros((9, 9, 9), dtype=np.float32)
    empty = describe_case(flat, flat.astype(np.uint8), None)

    assert nearest(empty, [empty])[:3:2] == (0, 1)


def test_the_distance_of_embeddings_is_that_to_the_closest_case():
    def with_features(*rows):
        return describe_case(*case(0), np.array(rows, dtype=np.float32).mean(axis=0))

    train = [with_features([9, 9]), with_features([4, 3], [2, 5])]  # mean (3, 4)

    assert nearest(with_features([0, 0]), train).embedding_distance == pytest.approx(5)
    assert nearest(with_features([0, 0]), TRAIN).embedding_distance is None
