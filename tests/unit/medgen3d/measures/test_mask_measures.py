"""Cuboids whose volumes, faces and neighbours are counted by hand."""

import numpy as np
import pytest

from medgen3d.measures.mask_measures import label_components, label_holes, measure_mask


def cuboid(shape, *boxes):
    """A mask [D, H, W] with label 1 in the first box, 2 in the second...; later boxes cover earlier ones."""
    mask = np.zeros(shape, dtype=np.uint8)
    for label, box in enumerate(boxes, start=1):
        mask[box] = label
    return mask


def test_a_cuboid_has_the_volume_surface_and_centre_that_its_edges_say():
    # 4 x 2 x 3 voxels of 2 x 1 x 0.5 mm: edges of 8, 2 and 1.5 mm.
    mask = cuboid((10, 8, 6), np.s_[2:6, 0:2, 3:6])
    measures = measure_mask(mask, 2, (2.0, 1.0, 0.5))

    assert measures.num_voxels[1] == 24
    assert measures.volume_ml[1] == pytest.approx(0.024)  # 24 mm3
    assert measures.surface_to_volume[1] == pytest.approx(2 * (8 * 2 + 8 * 1.5 + 2 * 1.5) / 24)
    assert measures.centroid[1] == pytest.approx([4 / 10, 1 / 8, 4.5 / 6])


def test_the_faces_of_a_label_that_touches_the_arrays_border_count_like_others():
    inside = measure_mask(cuboid((5, 5, 5), np.s_[1:4, 1:4, 1:4]), 2, (1.0, 1.0, 1.0))
    everywhere = measure_mask(np.ones((3, 3, 3), dtype=np.uint8), 2, (1.0, 1.0, 1.0))
    single = measure_mask(np.ones((1, 1, 1), dtype=np.uint8), 2, (1.0, 1.0, 1.0))

    assert inside.surface_to_volume[1] == everywhere.surface_to_volume[1] == pytest.approx(2)
    assert single.surface_to_volume[1] == pytest.approx(6)


def test_two_stacked_labels_share_the_face_between_them():
    # Label 1 is 2 x 3 x 3 (42 faces), label 2 on top of it 1 x 3 x 3 (30 faces): 9 faces are shared.
    mask = cuboid((6, 5, 5), np.s_[1:3, 1:4, 1:4], np.s_[3:4, 1:4, 1:4])
    adjacency = measure_mask(mask, 3, (1.0, 1.0, 1.0)).adjacency

    assert adjacency[1] == pytest.approx([33 / 42, 0, 9 / 42])
    assert adjacency[2] == pytest.approx([21 / 30, 9 / 30, 0])


def test_shared_faces_weigh_their_area():
    # Voxels of 3 x 1 x 1 mm: faces across D have 1 mm2, the others 3 mm2.
    mask = cuboid((3, 1, 1), np.s_[0:1], np.s_[1:2])
    assert measure_mask(mask, 3, (3.0, 1.0, 1.0)).adjacency[2, 1] == pytest.approx(1 / (1 + 1 + 4 * 3))


def test_an_absent_label_has_no_voxels_and_no_other_measures():
    measures = measure_mask(cuboid((4, 4, 4), np.s_[1:3, 1:3, 1:3]), 3, (1.0, 1.0, 1.0))

    assert (measures.num_voxels[2], measures.volume_ml[2]) == (0, 0)
    for values in measures[2:]:
        assert np.isnan(values[2]).all()
        assert not np.isnan(values[1]).any()


def test_touching_faces_join_a_component_and_touching_edges_do_not():
    mask = np.zeros((4, 5, 5), dtype=np.uint8)
    mask[0, 0, 0] = mask[0, 0, 1] = mask[1, 0, 1] = 1  # one component across two slices
    mask[2, 1, 1] = 1  # touches nothing by a face: mask[1, 0, 1] only by an edge
    mask[3, 4, 4] = 2

    assert label_components(mask, num_labels=4)[1:].tolist() == [2, 1, 0]


def test_the_same_label_beside_another_label_is_not_joined_through_it():
    mask = np.array([[[1, 2, 1, 0, 2]]], dtype=np.uint16)
    np.testing.assert_array_equal(label_components(mask, 3), [1, 2, 2])


def test_a_hollow_cube_has_one_hole_also_when_another_label_fills_it():
    hollow = cuboid((7, 7, 7), np.s_[1:6, 1:6, 1:6])
    hollow[3, 3, 3] = 0
    filled = hollow.copy()
    filled[3, 3, 3] = 2

    assert label_holes(hollow, 3)[1:].tolist() == [1, 0]
    assert label_holes(filled, 3)[1:].tolist() == [1, 0]


def test_a_cavity_that_reaches_the_outside_or_the_arrays_border_is_no_hole():
    tunnel = cuboid((5, 5, 5), np.s_[1:4, 1:4, 1:4])
    tunnel[2, 2, 2:] = 0
    at_border = np.ones((3, 3, 3), dtype=np.uint8)
    at_border[1, 1, 0] = 0

    assert label_holes(tunnel, 2)[1] == 0
    assert label_holes(at_border, 2)[1] == 0
