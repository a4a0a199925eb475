"""Label tables: gaps are closed on the way in and restored on the way out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgen3d.core.errors import DataError
from medgen3d.core.labels import LabelTable

ID_SETS = st.sets(st.integers(1, 65535), min_size=1, max_size=300)


def test_ids_with_gaps_become_contiguous_in_ascending_order():
    table = LabelTable.from_mapping({117: "rib", 0: "background", 5: "liver"})
    mask = np.array([[0, 5], [117, 5]], dtype=np.int16)
    assert table.to_contiguous(mask).tolist() == [[0, 1], [2, 1]]
    assert table.names == ("background", "liver", "rib")


@given(ids=ID_SETS, data=st.data())
def test_contiguous_and_back_gives_the_same_mask(ids, data):
    table = LabelTable.from_mapping({label: str(label) for label in ids})
    mask = np.array(data.draw(st.lists(st.sampled_from(table.original_ids), min_size=1, max_size=40)), dtype=np.uint16)
    contiguous = table.to_contiguous(mask)
    assert contiguous.max() < len(table)
    assert np.array_equal(table.to_original(contiguous), mask)


@pytest.mark.parametrize(("largest", "dtype"), [(255, np.uint8), (256, np.uint16)])
def test_original_ids_are_held_by_the_smallest_type(largest, dtype):
    assert LabelTable.from_mapping({largest: "x"}).to_original(np.array([1])).dtype == dtype


@pytest.mark.parametrize(("num_labels", "dtype"), [(256, np.uint8), (257, np.uint16)])
def test_contiguous_ids_are_held_by_the_smallest_type(num_labels, dtype):
    table = LabelTable.from_mapping({label: str(label) for label in range(num_labels)})
    assert table.to_contiguous(np.array([num_labels - 1])).dtype == dtype


def test_a_missing_background_is_added():
    assert LabelTable.from_mapping({3: "a"}).by_id == {0: "background", 3: "a"}


def test_an_undeclared_label_is_named():
    table = LabelTable.from_mapping({1: "a"})
    with pytest.raises(DataError, match=r"\[7\].*not declared"):
        table.to_contiguous(np.array([0, 1, 7]))


@pytest.mark.parametrize(
    ("ids", "names", "sentence"),
    [
        ((0, 1), ("background",), "2 label ids but 1 label names"),
        ((0,), ("background",), "at least one more"),
        ((0, 2, 1), ("a", "b", "c"), "ascending"),
        ((0, 1, 1), ("a", "b", "c"), "different"),
        ((1, 2), ("a", "b"), "background 0"),
        ((-1, 0), ("a", "b"), "background 0"),
        ((0, 65536), ("a", "b"), "65535"),
    ],
)
def test_a_table_that_cannot_be_is_refused(ids, names, sentence):
    with pytest.raises(DataError, match=sentence):
        LabelTable(ids, names)


def test_a_labels_key_is_its_name_without_dots_and_white_space():
    table = LabelTable.from_mapping({0: "background", 3: "Left Lat. Ventricle", 8: "pons"})
    assert table.keys == ("background", "Left_Lat__Ventricle", "pons")
    assert table.titles == table.names


def test_labels_that_share_a_name_are_told_apart_by_their_ids():
    table = LabelTable.from_mapping({0: "background", 3: "rib", 8: "rib"})
    assert table.titles == ("background (0)", "rib (3)", "rib (8)")
    assert table.keys == ("background_0", "rib_3", "rib_8")


def test_labels_whose_keys_are_alike_or_empty_are_told_apart_by_their_ids():
    assert LabelTable.from_mapping({0: "background", 3: "a b", 8: "a.b"}).keys == ("background_0", "a_b_3", "a_b_8")
    assert LabelTable.from_mapping({0: "background", 3: ""}).keys == ("background_0", "_3")
