from dataclasses import replace

import numpy as np
import pytest
import torch

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.artifacts.planned_case import plan_case
from medgen3d.config.experiment import CHAIN
from medgen3d.synthesis.batch_codec import InFlightBatch, begin
from medgen3d.synthesis.drawing import advance, advance_batch
from medgen3d_stages.chain import draw_masks


@pytest.fixture(scope="module")
def trained(tiny_pipeline):
    torch.set_num_threads(1)
    return {stage: read_bundle(root).trained_stage() for stage, root in tiny_pipeline.items()}


@pytest.fixture(scope="module")
def dataset(tiny_pipeline):
    return read_bundle(tiny_pipeline["refiner"]).info.dataset


@pytest.fixture
def plans(tiny_pipeline):
    shapes = read_bundle(tiny_pipeline["refiner"]).info.dataset.shapes
    return [plan_case(0, number, shapes) for number in range(4)]


def drawn(trained, plans, dataset):
    cases = begin(plans)
    for stage in CHAIN:
        cases = advance(stage, trained[stage], cases, dataset)
    return cases


def test_every_case_comes_out_in_its_own_size_with_known_labels_and_finite_intensities(trained, plans, dataset):
    assert len({plan.shape for plan in plans}) > 1
    for case, plan in zip(drawn(trained, plans, dataset), plans, strict=True):
        assert case.plan == plan
        assert not case.failure
        assert case.mask.shape == case.image.shape == plan.shape
        assert case.mask.max() < 3
        assert np.isfinite(case.image).all()
        assert case.image.std() > 0


def test_the_same_plans_give_the_same_bytes(trained, plans, dataset):
    for first, second in zip(drawn(trained, plans, dataset), drawn(trained, plans, dataset), strict=True):
        np.testing.assert_array_equal(first.mask, second.mask)
        np.testing.assert_array_equal(first.image, second.image)


def test_neighbours_go_as_far_as_they_matter_and_what_is_wanted_is_as_in_the_whole_batch(trained, plans, dataset):
    batch, sizes = InFlightBatch(key=0, wanted=[1, 3], cases=begin(plans)), []
    for stage in CHAIN:
        batch = advance_batch(stage, trained[stage], batch, dataset)
        sizes.append(len(batch.cases))
    whole = drawn(trained, plans, dataset)

    assert sizes == [4, 2, 2]
    for case, expected in zip(batch.cases, (whole[1], whole[3]), strict=True):
        np.testing.assert_array_equal(case.mask, expected.mask)
        np.testing.assert_array_equal(case.image, expected.image)


def test_a_case_that_cannot_be_drawn_costs_only_itself(trained, plans, dataset):
    impossible = plans[1].model_copy(update={"shape": (5, 500, 500)})  # larger than the plane
    cases = drawn(trained, [plans[0], impossible, plans[2]], dataset)

    assert cases[1].failure.startswith("case syn_00001: mask_generator failed with")
    assert not cases[0].failure
    assert "drawn alone" in cases[0].note
    assert cases[2].image.std() > 0


def test_cases_that_failed_before_are_left_alone(trained, plans, dataset):
    cases = begin(plans[:2])
    cases[0] = replace(cases[0], failure="case syn_00000: no luck")
    after = advance("mask_generator", trained["mask_generator"], cases, dataset)

    assert after[0] is cases[0]
    assert after[1].mask.any()
    assert not after[1].failure


def test_draws_of_nan_are_rejected(tiny_pipeline, plans, dataset):
    broken = read_bundle(tiny_pipeline["image_sequence_generator"]).trained_stage()
    for network in broken.networks.values():
        for parameter in network.parameters():
            parameter.fill_(float("nan"))
    cases = advance("image_sequence_generator", broken, begin(plans[:2]), dataset)

    assert [list(case.rejections) for case in cases] == [["not finite"], ["not finite"]]
    assert "NaN or infinite intensities" in cases[0].rejections["not finite"]


def voxels_of(case, label):
    return np.count_nonzero(case.mask == label)


def test_a_case_with_targets_is_the_best_of_its_candidates_and_is_rejected_if_none_meets_them(trained, plans, dataset):
    plan = plans[0].model_copy(update={"best_of": 4})
    seeds = [plan.mask_seed(place) for place in range(4)]
    every = draw_masks(trained["mask_generator"], [plan.shape] * 4, seeds)
    sizes = [int(np.count_nonzero(mask == 1)) for mask in every]
    largest = max(sizes) * 3.0 * 0.5 * 0.75 / 1000  # voxels of 3.0 x 0.5 x 0.75 mm in ml
    wanted = plan.model_copy(update={"targets": (f"bone.volume_ml >= {largest}",)})
    more = plan.model_copy(update={"targets": (f"bone.volume_ml > {2 * largest}",)})
    best, missed = (
        advance("mask_generator", trained["mask_generator"], begin([each]), dataset)[0] for each in (wanted, more)
    )

    assert len(set(sizes)) > 1
    assert voxels_of(best, 1) == max(sizes)
    assert best.is_sound
    assert voxels_of(missed, 1) == max(sizes)
    assert list(missed.rejections) == ["targets"]
    assert "none of 4 masks met bone.volume_ml >" in missed.rejections["targets"]


def test_a_whole_mask_is_kept_and_a_partial_one_completed(trained, plans, dataset):
    given = np.random.default_rng(0).integers(0, 3, plans[0].shape).astype(np.uint8)
    whole, partial = (
        replace(begin([plan.model_copy(update=update | {"shape": given.shape})])[0], mask=given)
        for plan, update in zip(
            plans, ({"mask": "a.nii.gz"}, {"partial_mask": "a.nii.gz", "known_slices": (1, 2)}), strict=False
        )
    )
    kept, completed = advance("mask_generator", trained["mask_generator"], [whole, partial], dataset)

    np.testing.assert_array_equal(kept.mask, given)
    np.testing.assert_array_equal(completed.mask[1:3], given[1:3])
    assert (completed.mask[3:] != given[3:]).any()


def test_cases_of_one_style_share_their_appearance(trained, plans, dataset):
    mask = np.ones(plans[0].shape, np.uint8)
    cases = [
        replace(begin([plan.model_copy(update={"shape": mask.shape, "style": style})])[0], mask=mask)
        for plan, style in zip(plans[:3], (5, 5, 6), strict=True)
    ]
    same, also, other = advance("image_sequence_generator", trained["image_sequence_generator"], cases, dataset)

    assert np.abs(same.image - also.image).mean() < np.abs(same.image - other.image).mean()
