from dataclasses import replace

import numpy as np
import pytest
import torch

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.artifacts.planned_case import plan_case
from medgen3d.config.experiment import CHAIN
from medgen3d.synthesis.work import begin
from medgen3d.synthesis.worker import advance


@pytest.fixture(scope="module")
def trained(tiny_pipeline):
    torch.set_num_threads(1)
    return {stage: read_bundle(root).trained_stage() for stage, root in tiny_pipeline.items()}


@pytest.fixture
def plans(tiny_pipeline):
    shapes = read_bundle(tiny_pipeline["refiner"]).info.dataset.shapes
    return [plan_case(0, number, shapes) for number in range(4)]


def drawn(trained, plans):
    cases = begin(plans)
    for stage in CHAIN:
        cases = advance(stage, trained[stage], cases)
    return cases


def test_every_case_comes_out_in_its_own_size_with_known_labels_and_finite_intensities(trained, plans):
    assert len({plan.shape for plan in plans}) > 1
    for case, plan in zip(drawn(trained, plans), plans, strict=True):
        assert case.plan == plan
        assert not case.failure
        assert case.mask.shape == case.image.shape == plan.shape
        assert case.mask.max() < 3
        assert np.isfinite(case.image).all()
        assert case.image.std() > 0


def test_the_same_plans_give_the_same_bytes(trained, plans):
    for first, second in zip(drawn(trained, plans), drawn(trained, plans), strict=True):
        np.testing.assert_array_equal(first.mask, second.mask)
        np.testing.assert_array_equal(first.image, second.image)


def test_a_case_that_cannot_be_drawn_costs_only_itself(trained, plans):
    impossible = plans[1].model_copy(update={"shape": (5, 500, 500)})  # larger than the plane
    cases = drawn(trained, [plans[0], impossible, plans[2]])

    assert cases[1].failure.startswith("case syn_00001: mask_generator failed with")
    assert not cases[0].failure
    assert "drawn alone" in cases[0].note
    assert cases[2].image.std() > 0


def test_cases_that_failed_before_are_left_alone(trained, plans):
    cases = begin(plans[:2])
    cases[0] = replace(cases[0], failure="case syn_00000: no luck")
    after = advance("mask_generator", trained["mask_generator"], cases)

    assert after[0] is cases[0]
    assert after[1].mask.any()
    assert not after[1].failure


def test_networks_that_give_nan_make_failed_cases_and_no_files_of_nan(tiny_pipeline, plans):
    broken = read_bundle(tiny_pipeline["image_sequence_generator"]).trained_stage()
    for network in broken.networks.values():
        for parameter in network.parameters():
            parameter.fill_(float("nan"))
    cases = advance("image_sequence_generator", broken, begin(plans[:2]))

    assert [case.failure[:16] for case in cases] == ["case syn_00000: ", "case syn_00001: "]
    assert "NaN or infinite intensities" in cases[0].failure
