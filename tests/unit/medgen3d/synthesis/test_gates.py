from dataclasses import replace

import numpy as np
import pytest

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.measures.fingerprints import describe_case
from medgen3d.measures.limits import CaseLimits, LabelLimits, NearCopyLimits
from medgen3d.synthesis.gates import GateRules, Gates
from medgen3d.synthesis.work import begin


@pytest.fixture(scope="module")
def dataset(tiny_pipeline):
    return read_bundle(tiny_pipeline["refiner"]).info.dataset  # bone 7 and cartilage 300; a voxel is 0.001125 ml


@pytest.fixture
def case(tiny_pipeline):
    from medgen3d.artifacts.planned_case import plan_case

    drawn = begin([plan_case(0, 0, [(8, 12, 20, 1)])])[0]
    rng = np.random.default_rng(0)
    mask = np.zeros((8, 12, 20), np.uint8)
    mask[2:6, 2:10, 2:18] = 1
    return replace(drawn, mask=mask, image=rng.normal(0, 0.3, mask.shape).astype(np.float32))


def limits(num_voxels=(500, 520), near_copy=None):
    volume_ml = tuple(number * 0.001125 for number in num_voxels)
    bone = LabelLimits(always_present=True, volume_ml=volume_ml, num_components=1, num_holes=0)
    return CaseLimits(num_cases=9, labels={7: bone}, near_copy=near_copy)


def judged(case, dataset, rules, train=()):
    return Gates(rules, dataset, list(train)).judge(case)


def test_gates_that_have_no_limits_do_not_run(case, dataset):
    assert judged(case, dataset, GateRules()) == case
    assert GateRules().digests == {}
    assert GateRules(limits=limits()).digests.keys() == {"limits"}


def test_a_mask_within_limits_passes_and_another_is_rejected_with_its_reasons(case, dataset):
    good = judged(case, dataset, GateRules(limits=limits()))  # 4 * 8 * 16 = 512 voxels
    bad = judged(case, dataset, GateRules(limits=limits((100, 200))))

    assert good.is_sound
    assert good.scores == {"limits": 1.0}
    assert list(bad.rejections) == ["volume"]
    assert bad.rejections["volume"].startswith("bone has 0.576 ml, expected 0.09 to 0.281")  # 512, 80 and 250 voxels
    assert bad.scores == {"limits": 0.0}


def test_the_mask_that_a_user_gave_is_not_judged(case, dataset):
    own = replace(case, plan=case.plan.model_copy(update={"mask": "mine.nii.gz"}))
    assert judged(own, dataset, GateRules(limits=limits((1, 2)))).is_sound


def test_a_case_that_is_rejected_already_is_left_alone(case, dataset):
    rejected = case.rejected("targets", "none met")
    assert judged(rejected, dataset, GateRules(limits=limits((1, 2)))) == rejected


@pytest.mark.parametrize(
    ("image_limit", "mask_limit", "is_copy"), [(0.99, 0.99, True), (1.1, 0.99, False), (0.99, 1.1, False)]
)
def test_a_near_copy_is_beyond_the_limits_of_image_and_mask(case, dataset, image_limit, mask_limit, is_copy, tmp_path):
    near = NearCopyLimits(image_correlation=image_limit, mask_dice=mask_limit, num_held_out=5)
    rules = GateRules(limits=limits(near_copy=near), train=object())
    known = describe_case(np.flip(case.image, 2).copy(), np.flip(case.mask, 2).copy())  # as a mirror image
    found = judged(case, dataset, rules, [known])

    assert found.scores["near copy, image"] == pytest.approx(1, abs=1e-4)
    assert found.scores["near copy, mask"] == pytest.approx(1, abs=1e-3)
    assert list(found.rejections) == ["near copy"] * is_copy
