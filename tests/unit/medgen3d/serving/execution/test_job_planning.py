import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgen3d.artifacts.planned_case import plan_case
from medgen3d.config.experiment import ServingConfig
from medgen3d.core.errors import DataError
from medgen3d.core.volume import Volume, affine_from_spacing
from medgen3d.serving.errors import RefusedError
from medgen3d.serving.execution.job_planning import (
    check_request,
    details_of,
    known_slices,
    limits_of,
    plan_cases,
    summary_of,
)
from medgen3d.serving.schemas import JobRequest


def request(**changes: object) -> JobRequest:
    return JobRequest(pipeline="knee", **changes)


def mask(labels=(0, 7, 300), shape=(4, 6, 8)) -> Volume:
    voxels = np.array(labels, np.uint16)[np.arange(np.prod(shape)).reshape(shape) % len(labels)]
    return Volume(voxels=voxels, affine=affine_from_spacing((3.0, 0.5, 0.75)))


def test_a_seed_means_the_cases_of_bulk_synthesis(knee):
    orders = plan_cases(request(seed=11, count=5), knee, None)
    planned = [plan_case(11, number, knee.dataset.shapes) for number in range(5)]
    assert [order.case_id for order in orders] == [case.case_id for case in planned]
    assert [order.shape for order in orders] == [case.shape for case in planned]
    assert [dict(order.seeds) for order in orders] == [case.seeds for case in planned]
    assert {(order.style_seed, order.mask) for order in orders} == {(None, None)}


@given(count=st.integers(1, 30), more=st.integers(0, 30), seed=st.integers(0, 2**63 - 1))
def test_more_cases_begin_with_the_same_cases(knee, count, more, seed):
    fewer = plan_cases(request(seed=seed, count=count), knee, None)
    assert plan_cases(request(seed=seed, count=count + more), knee, None)[:count] == fewer


def test_depth_and_style_are_those_of_the_request(knee):
    orders = plan_cases(request(depth=2, style=6, count=2), knee, None)
    assert [order.shape[0] for order in orders] == [2, 2]
    assert [order.style_seed for order in orders] == [6, 6]


def test_a_whole_mask_is_given_in_contiguous_ids_to_every_case(knee):
    orders = plan_cases(request(count=2, mask_use="full"), knee, mask())
    assert [order.shape for order in orders] == [(4, 6, 8)] * 2
    assert orders[0].mask[0, 0, :3].tolist() == [0, 1, 2]
    assert orders[0].given == {}
    assert orders[0].seeds != orders[1].seeds


def test_of_a_partial_mask_the_known_slices_are_given(knee):
    (order,) = plan_cases(request(mask_use="partial", known_slices=[3, 1, 3]), knee, mask())
    assert order.mask is None
    assert sorted(order.given) == [1, 3]
    np.testing.assert_array_equal(order.given[1], knee.dataset.label_table.to_contiguous(mask().voxels[1]))


def test_slices_that_hold_a_label_are_known_unless_they_are_named():
    partial = mask()
    partial.voxels[[0, 2]] = 0
    assert known_slices(request(mask_use="partial"), partial) == [1, 3]
    assert known_slices(request(mask_use="partial", known_slices=[0]), partial) == [0]  # an empty slice may be known
    assert known_slices(request(mask_use="full"), partial) == []


def test_a_mask_with_other_labels_cannot_become_an_order(knee):
    with pytest.raises(DataError, match="not declared"):
        plan_cases(request(mask_use="full"), knee, mask(labels=(0, 1)))


@pytest.mark.parametrize(
    ("changes", "given_mask", "words"),
    [
        ({}, mask(), "found a mask without mask_use"),
        ({"mask_use": "full"}, None, "found mask_use without a mask"),
        ({"mask_use": "full", "known_slices": [0]}, mask(), "without a partial mask"),
        ({"mask_use": "full", "depth": 4}, mask(), "Leave depth out"),
        ({"mask_use": "partial", "known_slices": [0, 4]}, mask(), "found 4, expected at most 3"),
        ({"mask_use": "partial", "known_slices": []}, mask(), "no label but background"),
        ({"mask_use": "partial"}, mask(labels=(0,)), "no label but background"),
        ({"mask_use": "full"}, mask(labels=(0,)), "no label but background"),
        ({"count": 501}, None, "expected at most 500"),
        ({"depth": 10}, None, "expected at most 9"),
        ({"count": 500, "spacing_mm": (0.01, 0.5, 0.75)}, None, "voxels, expected at most"),
    ],
)
def test_what_cannot_be_drawn_is_refused(knee, changes, given_mask, words):
    limits = limits_of(knee, ServingConfig())
    with pytest.raises(RefusedError, match=words):
        check_request(request(**changes), knee, limits, given_mask)


def test_the_limit_of_voxels_counts_what_is_drawn_and_what_is_resampled(knee):
    limits = limits_of(knee, ServingConfig(max_voxels=192))
    full = request(mask_use="full")
    check_request(full, knee, limits, mask())  # 4 x 6 x 8
    with pytest.raises(RefusedError, match="comes to 384 voxels"):
        check_request(full.model_copy(update={"count": 2}), knee, limits, mask())
    with pytest.raises(RefusedError, match="comes to 384 voxels"):
        check_request(full.model_copy(update={"spacing_mm": (1.5, 0.5, 0.75)}), knee, limits, mask())
    check_request(full.model_copy(update={"spacing_mm": (6.0, 0.5, 0.75)}), knee, limits, mask())


def test_what_clients_see_of_a_pipeline(knee):
    summary = summary_of(knee, ServingConfig(max_count=12, max_voxels=99))
    assert (summary.name, summary.version, summary.modality, summary.phantom) == ("knee", 3, "MR", True)
    assert summary.labels == {0: "background", 7: "bone", 300: "cartilage"}
    assert summary.limits.model_dump() == {"max_count": 12, "max_depth": 9, "plane": (16, 24), "max_voxels": 99}
    assert details_of(knee, ServingConfig()).card == ""
