import io

import numpy as np
import pytest
from PIL import Image

from medgen3d.artifacts.pictures import label_colours, montage, panels

TWO_LABELS = {0: "background", 1: "one"}


def decoded(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def ball_case(shape=(6, 8, 10), label=1):
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    mask = np.zeros(shape, dtype=np.uint8)
    mask[2:4, 3:6, 4:7] = label
    return "a case", image, mask


def test_a_superior_anterior_left_voxel_is_shown_upper_left_upper_left_and_upper_right():
    image = np.zeros((6, 8, 10), dtype=np.float32)
    image[5, 7, 0] = 1.0  # superior, anterior, left
    image[5, 6:, :3] = 1.0  # enough voxels to reach the upper percentile
    mask = (image > 0).astype(np.uint8)
    (axial, _), (coronal, _), (sagittal, _) = panels(image, mask, label_colours(2), np.array([10.0, 10.0, 10.0]))

    assert axial.shape == (80, 100, 3)
    assert coronal.shape == (60, 100, 3)
    assert sagittal.shape == (60, 80, 3)
    assert axial[5, 5, 0] > 200
    assert axial[75, 5, 0] < 50
    assert axial[5, 95, 0] < 50
    assert coronal[5, 5, 0] > 200
    assert coronal[55, 5, 0] < 50
    assert coronal[5, 95, 0] < 50
    assert sagittal[5, 75, 0] > 200  # anterior is on the right
    assert sagittal[5, 5, 0] < 50
    assert sagittal[55, 75, 0] < 50


def test_the_mask_is_tinted_in_its_colour_only_in_the_second_panel_and_only_where_it_lies():
    _, image, mask = ball_case()
    colours = label_colours(2)
    for plain, overlaid in panels(image, mask, colours, np.array([10.0, 10.0, 10.0])):
        assert (plain[..., 0] == plain[..., 1]).all()
        changed = (plain != overlaid).any(axis=2)
        assert changed.any()
        assert not changed[0].any()
        assert not changed[-1].any()
        assert (overlaid == colours[1]).all(axis=2).any()  # the opaque outline


def test_each_plane_goes_through_the_slice_with_most_foreground():
    image = np.zeros((4, 4, 4), dtype=np.float32)
    mask = np.zeros((4, 4, 4), dtype=np.uint8)
    mask[1, 0, 0] = 1
    mask[3, 2:4, 0:3] = 1
    (_, axial), *_ = panels(image, mask, label_colours(2), np.array([10.0, 10.0, 10.0]))

    assert axial[5, 5, 0] != 128  # y = 3, x = 0 of slice 3: foreground
    assert axial[35, 5, 0] == 128  # y = 0, x = 0: foreground in slice 1 alone; a constant image is mid grey


def test_anisotropic_voxels_are_shown_in_their_true_proportions():
    image, mask = np.zeros((5, 20, 20), dtype=np.float32), np.zeros((5, 20, 20), dtype=np.uint8)
    (axial, _), (coronal, _), (sagittal, _) = panels(image, mask, label_colours(2), np.array([8.0, 2.0, 2.0]))

    assert axial.shape[:2] == (40, 40)
    assert coronal.shape[:2] == (40, 40)
    assert sagittal.shape[:2] == (40, 40)


@pytest.mark.parametrize("num_labels", [2, 3, 9, 43, 118, 300])
def test_every_label_has_a_colour_of_its_own(num_labels):
    assert len(np.unique(label_colours(num_labels), axis=0)) == num_labels


def test_the_colour_of_a_label_does_not_depend_on_how_many_there_are():
    np.testing.assert_array_equal(label_colours(118)[:5], label_colours(5))


def test_the_same_input_gives_the_same_bytes():
    assert montage([ball_case()], TWO_LABELS, (1, 1, 1)) == montage([ball_case()], TWO_LABELS, (1, 1, 1))


def test_the_legend_shows_the_colours_of_the_labels_that_occur_and_of_no_other():
    labels = {0: "background", 7: "seven", 40: "forty", 90: "ninety"}
    _, image, mask = ball_case(label=40)
    without_overlay = decoded(montage([("", image, mask)], labels, (1, 1, 1)))[-40:]

    seven, forty, ninety = label_colours(4)[1:]
    assert (without_overlay == forty).all(axis=2).sum() > 100
    assert not (without_overlay == seven).all(axis=2).any()
    assert not (without_overlay == ninety).all(axis=2).any()


def test_columns_put_cases_side_by_side():
    stacked = decoded(montage([ball_case(), ball_case()], TWO_LABELS, (1, 1, 1)))
    beside = decoded(montage([ball_case(), ball_case()], TWO_LABELS, (1, 1, 1), num_columns=2))

    assert beside.shape[1] > 1.9 * stacked.shape[1]
    assert stacked.shape[0] > 1.5 * beside.shape[0]


def test_a_hundred_labels_long_names_and_thin_volumes_still_give_a_picture():
    image = np.random.default_rng(0).normal(size=(1, 12, 30)).astype(np.float32)
    mask = np.arange(360).reshape(1, 12, 30) % 120
    labels = {label: f"Ключица {label} " * 30 for label in range(120)}

    assert decoded(montage([("long " * 200, image, mask)], labels, (5.0, 0.5, 0.5))).ndim == 3


def test_a_label_without_a_name_is_refused():
    with pytest.raises(ValueError, match=r"a case: the mask holds the labels \[3\], which have no name"):
        montage([ball_case(label=3)], TWO_LABELS, (1, 1, 1))


def test_no_case_is_refused():
    with pytest.raises(ValueError, match="at least one case"):
        montage([], TWO_LABELS, (1, 1, 1))


def test_an_image_and_mask_of_different_shapes_are_refused():
    _, image, mask = ball_case()
    with pytest.raises(ValueError, match="must have the same shape"):
        montage([("a case", image, mask[1:])], TWO_LABELS, (1, 1, 1))
