import numpy as np
import pytest

from medgen3d.training.elastic_deformation import elastically_deformed
from medgen3d_stages.arrays import Example


def ramp(axis: int, side: int) -> Example:
    """A cube whose value is a hundredth of the index along one axis; its upper half carries the label 1."""
    places = np.broadcast_to(np.moveaxis(np.arange(side)[:, None, None], 0, axis), (side, side, side))
    image = (places / 100).astype(np.float32)
    return Example(image=image, mask=(places >= side / 2).astype(np.uint8), box=(0, side, 0, side))


def whole(example: Example) -> Example:
    return Example(image=example.image[:], mask=example.mask[:], box=example.box)


def test_a_field_without_displacements_changes_nothing():
    example = ramp(1, 20)
    same = whole(elastically_deformed(example, (1.0, 1.0, 1.0), 0.0, np.random.default_rng(0)))
    np.testing.assert_allclose(same.image, example.image, atol=1e-6)
    np.testing.assert_array_equal(same.mask, example.mask)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("side", "spacing"), [(17, 2.0), (9, 4.0)])
def test_displacements_at_a_knot_have_the_wanted_size_in_millimetres(axis, side, spacing):
    # 17 voxels of 2 mm or 9 of 4 mm: three knots along each axis, so the middle voxel is one.
    middle = (side // 2,) * 3
    example = ramp(axis, side)
    moved = [
        elastically_deformed(example, (spacing,) * 3, 2.0, np.random.default_rng(seed)).image[middle] * 100 - side // 2
        for seed in range(300)
    ]
    assert np.std(moved) * spacing == pytest.approx(2.0, rel=0.15)
    assert np.mean(moved) * spacing == pytest.approx(0.0, abs=0.5)


def test_image_and_mask_move_together():
    example = ramp(2, 33)
    moved = whole(elastically_deformed(example, (1.0, 1.0, 1.0), 3.0, np.random.default_rng(1)))
    assert (moved.mask != example.mask).sum() > 300
    # Where the image was fetched from the upper half, by more than half a voxel, so was the mask.
    assert moved.mask[moved.image > 0.17 + 0.005].all()
    assert not moved.mask[moved.image < 0.16 - 0.005].any()


def test_padding_outside_the_case_stays_as_it_was():
    example = ramp(1, 20)
    framed = Example(image=example.image, mask=example.mask, box=(3, 17, 5, 20))
    moved = whole(elastically_deformed(framed, (1.0, 1.0, 1.0), 3.0, np.random.default_rng(2)))
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
        whole(elastically_deformed(example, (1.0, 1.0, 1.0), 2.0, np.random.default_rng(seed))) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one.image, two.image)
    assert (one.image != other.image).any()
    np.testing.assert_array_equal(example.image, before)


@pytest.mark.parametrize("key", [np.s_[3:9], np.s_[:, 7, 4:15], np.s_[-1], np.s_[2:4, 0:20, 18:20], np.s_[5:5]])
def test_a_part_is_bent_as_it_is_in_the_whole(key):
    framed = Example(image=ramp(1, 20).image, mask=ramp(2, 20).mask, box=(3, 17, 5, 20))
    moved = elastically_deformed(framed, (1.0, 1.5, 1.0), 3.0, np.random.default_rng(2))
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
    elastically_deformed(watched, (1.0, 1.0, 1.0), 2.0, np.random.default_rng(0)).image[20:24]
    assert all(part[0].stop - part[0].start < 24 for part in read)  # four slices, and six standard deviations each way
