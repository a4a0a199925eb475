import numpy as np
import pytest

from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.training_limits import fingerprints_of, limits_of, training_data
from medgen3d.core.errors import DataError
from medgen3d.measures.fingerprints import nearest, threshold


@pytest.fixture(scope="module")
def prepared(make_prepared, tmp_path_factory):
    """Four test and three training cases whose label is a cube of 5 x 5 x 5 voxels."""
    return PreparedSet(make_prepared(tmp_path_factory.mktemp("limits")))


def test_limits_are_learned_from_the_training_cases_alone(prepared):
    limits = limits_of(prepared)
    voxels = [
        np.bincount(prepared.read(case_id).mask.ravel(), minlength=len(prepared.info.labels))
        for case_id in prepared.info.case_ids("train")
    ]
    voxel_ml = np.prod(prepared.info.spacing_mm) / 1000

    assert limits.num_cases == 3
    for place, label_id in enumerate(prepared.info.label_table.original_ids[1:], start=1):
        sizes = [counts[place] * voxel_ml for counts in voxels if counts[place]]
        assert limits.labels[label_id].volume_ml == pytest.approx((min(sizes), max(sizes)))


def test_a_near_copy_is_closer_than_the_held_out_cases_are(prepared):
    train, limits = fingerprints_of(prepared), limits_of(prepared).near_copy
    held_out = [nearest(case, train) for case in fingerprints_of(prepared, "test")]

    assert limits is not None
    assert limits.num_held_out == 4
    assert limits.image_correlation == threshold(np.array([case.image_correlation for case in held_out]))
    assert all(nearest(case, train).image_correlation > limits.image_correlation for case in train)


def test_a_set_without_training_cases_has_no_limits(make_prepared, tmp_path):
    with pytest.raises(DataError, match="has no training cases"):
        limits_of(PreparedSet(make_prepared(tmp_path / "empty", train=range(0))))


def test_the_training_data_are_found_where_they_were_if_they_are_the_same(prepared, tmp_path):
    known = str(prepared.root)
    assert training_data("it", prepared.digest, None, known).root == prepared.root
    assert training_data("it", "0" * 64, None, known) is None
    assert training_data("it", prepared.digest, None, str(tmp_path)) is None
    assert training_data("it", prepared.digest, None, None) is None


def test_other_data_than_those_that_a_user_names_are_not_taken(prepared, tmp_path):
    assert training_data("it", prepared.digest, prepared.root, str(tmp_path)).root == prepared.root
    with pytest.raises(DataError, match=r"is not the prepared set that it was trained on.*Name that one, or none"):
        training_data("it", prepared.digest, tmp_path, str(prepared.root))
